"""`train` with an encoder from elsewhere: its weights, its colours, and another file of the same name."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from wsi_attention.checkpoint import load_model
from wsi_attention.cli.app import app
from wsi_attention.encoders.conversion import About, convert
from wsi_attention.encoders.encoder_weights import save_encoder
from wsi_attention.encoders.libraries import timm_package
from wsi_attention.encoders.origin import Origin
from wsi_attention.errors import InputError, MissingExtraError, ModelError
from wsi_attention.nn.encoders import TileEncoder
from wsi_attention.nn.overview_colours import OwnColours
from wsi_attention.nn.timm_encoder import timm_state
from wsi_attention.testing.slides import SlideSpec, write_slide

pytestmark = pytest.mark.usefixtures("warm_processes")
RECIPE = """
method = "ats"
epochs = 1
batch = 2
validation_share = 0.5
statistics = "encoder"
[model]
draws = 2
tile_size = 64
tile_mpp = 1.0
overview_mpp = 8.0
encoder_frozen = true
attention_widths = [8, 8]
context = 3
"""
SMALL = "encoder_widths = [8, 16]\nfeatures = 16\n"
COLOURS = {"mean": (0.7, 0.5, 0.6), "std": (0.2, 0.25, 0.15)}


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    with (folder / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("slide", "label"))
        for seed in range(4):
            label = ("benign", "lesion")[seed % 2]
            write_slide(folder / f"s{seed}.svs", SlideSpec(size=(768, 768), seed=seed, label=label, lesion_scale=8))
            rows.writerow((f"s{seed}", label))
    return folder


def arguments(slides: Path, output: Path, model: str, *more: str) -> list[str]:
    recipe = output.with_suffix(".toml")
    recipe.write_text(RECIPE + model)
    given = {"-l": slides / "labels.csv", "-i": slides, "-o": output, "--config": recipe}
    return ["train", *(str(part) for pair in given.items() for part in pair), "--device", "cpu", *more]


def encoder_file(path: Path, seed: int, **colours: tuple[float, ...]) -> str:
    torch.manual_seed(seed)
    save_encoder(path, TileEncoder(name="small", widths=(8, 16), features=16).build(), **colours)
    return str(path)


def test_the_model_has_the_encoders_weights_and_colours_and_another_file_is_another_run(
    slides: Path, tmp_path: Path
) -> None:
    file, output = encoder_file(tmp_path / "e.safetensors", 0, **COLOURS), tmp_path / "model"
    call = arguments(slides, output, SMALL, "--encoder-start", file)
    ran = CliRunner().invoke(app, call)
    assert ran.exit_code == 0, ran.output
    config = json.loads((output / "config.json").read_text())
    assert (config["mean"], config["std"]) == (list(COLOURS["mean"]), list(COLOURS["std"]))
    own = torch.tensor([config["options"][name] for name in ("overview_mean", "overview_std")])
    assert own.shape == (2, 3) and (own[0] > 0.4).all() and (own[1] < 0.2).all()
    assert isinstance(load_model(output).model.attention.colours, OwnColours)
    assert config["recipe"]["encoder_start"] == file
    weights = load_model(output).model.encoder.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in load_file(file).items())
    assert "finished already" in CliRunner().invoke(app, call).output
    encoder_file(tmp_path / "e.safetensors", 1, **COLOURS)
    refused = CliRunner().invoke(app, call)
    assert isinstance(refused.exception, InputError)
    assert "a training with a different encoder_start" in str(refused.exception)


def test_unknown_colours_and_random_frozen_weights_are_said(slides: Path, tmp_path: Path) -> None:
    file = encoder_file(tmp_path / "e.safetensors", 0)
    ran = CliRunner().invoke(app, arguments(slides, tmp_path / "model", SMALL, "--encoder-start", file))
    assert isinstance(ran.exception, InputError)
    assert "nothing says which colours" in str(ran.exception)
    assert "add mean = [...] and std = [...] under [model]" in str(ran.exception)
    assert "frozen with random weights" not in ran.output
    without = CliRunner().invoke(app, arguments(slides, tmp_path / "model", SMALL))
    assert "note: the encoder is frozen with random weights" in without.output
    assert not (tmp_path / "model").exists()


def test_an_encoder_of_timm_trains_and_classifies(slides: Path, tmp_path: Path) -> None:
    output = tmp_path / "model"
    ran = CliRunner().invoke(app, arguments(slides, output, 'encoder = "timm:test_resnet"\n'))
    if "works" not in timm_state():
        assert isinstance(ran.exception, MissingExtraError)
        assert not output.exists()
        pytest.skip(timm_state())
    assert ran.exit_code == 0, ran.output
    config = json.loads((output / "config.json").read_text())
    assert (config["mean"], config["std"]) == ([0.5] * 3, [0.5] * 3)
    out = ["classify", "-i", str(slides / "s0.svs"), "-o", str(tmp_path / "results"), "-m", str(output)]
    assert CliRunner().invoke(app, out).exit_code == 0


HE = "mean = [0.485, 0.456, 0.406]\nstd = [0.229, 0.224, 0.225]\n"
UNI = {"depth": 1, "embed_dim": 24, "num_heads": 3, "init_values": 1e-5}


def test_uni_by_hand_with_colours_missing_is_refused_with_the_lines_to_add(slides: Path, tmp_path: Path) -> None:
    """The architecture's own colours, 0.5, are those of timm's weights; UNI's are ImageNet's."""
    name = f"timm:vit_large_patch16_224 {json.dumps({**UNI, 'img_size': 64})}"
    try:
        encoder = TileEncoder(name=name).build()
    except MissingExtraError as error:
        pytest.skip(str(error))
    uni = str(tmp_path / "uni.safetensors")
    save_encoder(uni, encoder)
    call = arguments(slides, tmp_path / "model", f"encoder = '{name}'\n", "--encoder-start", uni)
    refused = CliRunner().invoke(app, call)
    assert isinstance(refused.exception, InputError)
    assert f"nothing says which colours the weights of {uni} were trained with; add mean = " in str(refused.exception)
    assert not (tmp_path / "model").exists()
    call = arguments(slides, tmp_path / "model", f"encoder = '{name}'\n{HE}", "--encoder-start", uni)
    assert CliRunner().invoke(app, call).exit_code == 0
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert (config["mean"], config["std"]) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def test_colours_of_the_overview_in_the_recipe_are_kept(slides: Path, tmp_path: Path) -> None:
    file = encoder_file(tmp_path / "e.safetensors", 0, **COLOURS)
    stated = "overview_mean = [0.1, 0.2, 0.3]\noverview_std = [0.4, 0.5, 0.6]\n"
    ran = CliRunner().invoke(app, arguments(slides, tmp_path / "model", SMALL + stated, "--encoder-start", file))
    assert ran.exit_code == 0, ran.output
    options = json.loads((tmp_path / "model" / "config.json").read_text())["options"]
    assert (options["overview_mean"], options["overview_std"]) == ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])


def test_a_model_that_starts_from_another_sees_overviews_as_that_one_did(slides: Path, tmp_path: Path) -> None:
    file = encoder_file(tmp_path / "e.safetensors", 0, **COLOURS)
    stated = "overview_mean = [0.1, 0.2, 0.3]\noverview_std = [0.4, 0.5, 0.6]\n"
    bare = "overview_mean = []\noverview_std = []\n"
    for name, lines in (("own", stated), ("none", bare)):
        first = arguments(slides, tmp_path / name, SMALL + lines, "--encoder-start", file)
        assert CliRunner().invoke(app, first).exit_code == 0
        further = tmp_path / f"after-{name}"
        call = arguments(slides, further, SMALL, "--encoder-start", file, "--start", str(tmp_path / name))
        ran = CliRunner().invoke(app, call)
        assert ran.exit_code == 0, ran.output
        before, after = (json.loads((one / "config.json").read_text())["options"] for one in (tmp_path / name, further))
        assert before["overview_mean"] == ([0.1, 0.2, 0.3] if name == "own" else [])
        assert all(after.get(one, []) == before[one] for one in ("overview_mean", "overview_std"))


def test_colours_in_the_recipe_must_be_those_that_the_file_states(slides: Path, tmp_path: Path) -> None:
    file = encoder_file(tmp_path / "e.safetensors", 0, **COLOURS)
    ran = CliRunner().invoke(app, arguments(slides, tmp_path / "model", SMALL + HE, "--encoder-start", file))
    assert isinstance(ran.exception, InputError)
    assert "mean = [0.485, 0.456, 0.406] under [model] is not what the weights of" in str(ran.exception)


def test_a_published_encoder_by_name_trains_on_tiles_of_its_size_and_classifies(slides: Path, tmp_path: Path) -> None:
    name = f"uni {json.dumps({**UNI, 'dim': 24})}"
    try:
        encoder = TileEncoder(name=name).build()
    except MissingExtraError as error:
        pytest.skip(str(error))
    uni, output = str(tmp_path / "uni.safetensors"), tmp_path / "model"
    save_encoder(uni, encoder)
    recipe = tmp_path / "mine.toml"
    recipe.write_text(RECIPE.replace("tile_size = 64\ntile_mpp = 1.0\n", "").replace('statistics = "encoder"\n', ""))
    call = ["train", "-l", str(slides / "labels.csv"), "-i", str(slides), "-o", str(output), "--config", str(recipe)]
    call += ["--encoder", name, "--encoder-start", uni, "--device", "cpu"]
    ran = CliRunner().invoke(app, call)
    assert ran.exit_code == 0, ran.output
    config = json.loads((output / "config.json").read_text())
    assert (config["mean"], config["mpp"]) == ([0.485, 0.456, 0.406], 0.5)
    assert config["options"]["tile_size"] == 256 and config["options"]["encoder"]["frozen"] is True
    weights = load_model(output).model.encoder.state_dict()
    assert all(torch.equal(weights[key], value) for key, value in load_file(uni).items())
    out = ["classify", "-i", str(slides / "s0.svs"), "-o", str(tmp_path / "results"), "-m", str(output)]
    assert CliRunner().invoke(app, out).exit_code == 0
    recipe.write_text(RECIPE)
    refused = CliRunner().invoke(app, call)
    assert isinstance(refused.exception, InputError)
    assert "tile_size = 64 contradicts encoder 'uni', which takes tiles of 256 or 224 px" in str(refused.exception)


def gated_file(path: Path, seed: int = 0) -> Path:
    """A file that `encoders convert` wrote of weights that must not be given on."""
    torch.manual_seed(seed)
    encoder = TileEncoder(name="small", widths=(8, 16), features=16).build()
    torch.save({"model": encoder.state_dict()}, path.with_suffix(".pth"))
    about = About(COLOURS["mean"], COLOURS["std"], Origin("lab-vit", "lab/vit", "v1", "CC-BY-NC-ND-4.0", False))
    return convert(path.with_suffix(".pth"), path, about).path


def test_a_model_on_gated_weights_points_to_them(slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSI_ATTENTION_ENCODERS", str(tmp_path / "encoders"))
    file, output = gated_file(tmp_path / "e.safetensors"), tmp_path / "model"
    ran = CliRunner().invoke(app, arguments(slides, output, SMALL, "--encoder-start", str(file)))
    assert ran.exit_code == 0, ran.output
    assert (
        "note: the weights of encoder lab-vit: licence CC-BY-NC-ND-4.0, must not be given on; the model" in ran.output
    )
    assert not [name for name in load_file(output / "model.safetensors") if name.startswith("encoder.")]
    assert not list(output.rglob("state*"))
    assert load_model(output).encoder is not None
    out = ["classify", "-i", str(slides / "s0.svs"), "-o", str(tmp_path / "results"), "-m", str(output)]
    (tmp_path / "encoders").mkdir()
    file.rename(tmp_path / "encoders" / "lab-vit.safetensors")
    assert CliRunner().invoke(app, out).exit_code == 0
    (tmp_path / "encoders" / "lab-vit.safetensors").unlink()
    refused = CliRunner().invoke(app, [*out, "--overwrite"])
    assert isinstance(refused.exception, ModelError)
    assert str(refused.exception).endswith("get them with: wsi-attention encoders fetch lab-vit")
    page = CliRunner().invoke(app, ["info", str(output)])
    assert page.exit_code == 0
    assert "lab-vit (lab/vit, v1): licence CC-BY-NC-ND-4.0, must not be given on." in page.output
    further = tmp_path / "further"
    (tmp_path / "encoders" / "lab-vit.safetensors").write_bytes(gated_file(tmp_path / "again.safetensors").read_bytes())
    call = arguments(slides, further, SMALL, "--start", str(output))
    recipe = further.with_suffix(".toml")
    recipe.write_text(recipe.read_text().replace('statistics = "encoder"', ""))
    ran = CliRunner().invoke(app, call)
    assert ran.exit_code == 0, ran.output
    assert json.loads((further / "config.json").read_text())["encoder_weights"]["contained"] is False


def test_gated_weights_are_not_trained(slides: Path, tmp_path: Path) -> None:
    file = gated_file(tmp_path / "e.safetensors")
    call = arguments(slides, tmp_path / "model", SMALL, "--encoder-start", str(file))
    recipe = tmp_path / "model.toml"
    recipe.write_text(recipe.read_text().replace("encoder_frozen = true", "encoder_frozen = false"))
    refused = CliRunner().invoke(app, call)
    assert isinstance(refused.exception, InputError)
    assert str(refused.exception) == (
        "encoder lab-vit: its licence (CC-BY-NC-ND-4.0) forbids giving on changed weights, and a model folder would "
        "contain them; set encoder_frozen = true under [model]"
    )
    assert not (tmp_path / "model").exists()


def timm_folder(folder: Path, licence: str = "") -> Path:
    """An encoder as timm writes it, with its classifier."""
    try:
        network = timm_package().create_model("test_resnet", num_classes=7)
    except MissingExtraError as error:
        pytest.skip(str(error))
    folder.mkdir(parents=True)
    published = {key: list(value) for key, value in COLOURS.items()}
    config = {"architecture": "test_resnet", "num_classes": 7, "pretrained_cfg": {**published, "classifier": "fc"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "README.md").write_text(f"---\nlicense: {licence}\n---\n")
    save_file(network.state_dict(), folder / "model.safetensors")
    return folder


def plain(recipe: Path) -> None:
    """Leave out of a recipe what the encoder decides."""
    recipe.write_text(recipe.read_text().replace('statistics = "encoder"\n', ""))


def test_a_folder_of_timm_is_an_encoder_with_weights_and_colours(slides: Path, tmp_path: Path) -> None:
    folder, output = timm_folder(tmp_path / "net"), tmp_path / "model"
    call = arguments(slides, output, f'encoder = "{folder}"\n')
    plain(output.with_suffix(".toml"))
    ran = CliRunner().invoke(app, call)
    assert ran.exit_code == 0, ran.output
    config = json.loads((output / "config.json").read_text())
    assert (config["mean"], config["std"]) == (list(COLOURS["mean"]), list(COLOURS["std"]))
    assert config["options"]["encoder"]["name"] == "timm:test_resnet"
    published = load_file(folder / "model.safetensors")
    shutil.rmtree(folder)
    weights = load_model(output).model.encoder.state_dict()
    assert all(torch.equal(value, published[name]) for name, value in weights.items())


def test_a_folder_with_a_pickle_says_how_to_convert_it(slides: Path, tmp_path: Path) -> None:
    folder = timm_folder(tmp_path / "net")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    refused = CliRunner().invoke(app, arguments(slides, tmp_path / "model", f'encoder = "{folder}"\n'))
    assert isinstance(refused.exception, InputError)
    assert f"convert it once: wsi-attention encoders convert {folder / 'pytorch_model.bin'}" in str(refused.exception)
    assert CliRunner().invoke(app, ["encoders", "convert", str(folder / "pytorch_model.bin")]).exit_code == 0
    ran = CliRunner().invoke(app, arguments(slides, tmp_path / "model", f'encoder = "{folder}"\n'))
    assert ran.exit_code == 0, ran.output


def test_a_gated_snapshot_is_pointed_to_and_found_in_the_cache(
    slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    repository, output = tmp_path / "hub" / "models--lab--net", tmp_path / "model"
    folder = timm_folder(repository / "snapshots" / ("d" * 40), "cc-by-nc-nd-4.0")
    call = arguments(slides, output, f'encoder = "{repository}"\n')
    plain(output.with_suffix(".toml"))
    ran = CliRunner().invoke(app, call)
    assert ran.exit_code == 0, ran.output
    assert not [name for name in load_file(output / "model.safetensors") if name.startswith("encoder.")]
    published = load_file(folder / "model.safetensors")
    weights = load_model(output).model.encoder.state_dict()
    assert all(torch.equal(value, published[name]) for name, value in weights.items())
    (tmp_path / "hub").rename(tmp_path / "gone")
    with pytest.raises(ModelError, match=f"get them with: wsi-attention encoders fetch hub:lab/net@{'d' * 40}"):
        load_model(output)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "gone"))
    assert load_model(output).encoder is not None
