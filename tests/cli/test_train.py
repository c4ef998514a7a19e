"""The whole way on generated slides: labels and slides in, a model folder out; killed and resumed, the same bytes."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tifffile
import torch
import warm_python
from typer.testing import CliRunner

from wsi_attention.checkpoint import load_model
from wsi_attention.cli.app import app
from wsi_attention.errors import InputError, ModelError
from wsi_attention.testing.slides import SlideSpec, write_slide

RECIPE = """
epochs = 3
patience = 10
batch = 2
validation_share = 0.34
[model]
draws = 4
tile_size = 64
tile_mpp = 1.0
overview_mpp = 8.0
encoder_widths = [8, 16]
features = 16
attention_widths = [8, 8]
context = 3
[optimiser]
learning_rate = 0.003
"""


@pytest.fixture(scope="module")
def slide_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    with (folder / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("slide", "label"))
        for seed in range(6):
            label = ("benign", "lesion")[seed % 2]
            write_slide(folder / f"s{seed}.svs", SlideSpec(size=(1024, 1000), seed=seed, label=label, lesion_scale=8))
            rows.writerow((f"s{seed}", label))
    (folder / "recipe.toml").write_text(RECIPE)
    return folder


def arguments(slides: Path, output: Path, *more: str) -> list[str]:
    given = {"-l": slides / "labels.csv", "-i": slides, "-o": output, "--config": slides / "recipe.toml"}
    return ["train", *(str(part) for pair in given.items() for part in pair), "--device", "cpu", *more]


def run(slides: Path, output: Path, *more: str) -> str:
    result = CliRunner().invoke(app, arguments(slides, output, *more), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in ("README.md",))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def trained(slide_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("model") / "straight"
    assert "best of 3 epochs is" in run(slide_set, output)
    return output


def test_the_folder_is_a_model_with_all_that_made_it(slide_set: Path, trained: Path) -> None:
    classifier = load_model(trained)
    assert classifier.classes == ("benign", "lesion")
    config = json.loads((trained / "config.json").read_text())
    assert config["options"]["draws"] == 4
    assert config["mpp"] == 1.0
    assert config["recipe"]["epochs"] == 3
    assert len(config["data_fingerprint"]) == 64
    assert config["metrics"]["validation slides"] == 2
    assert config["metrics"]["training slides"] == 4
    with (trained / "training" / "metrics.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2", "3"]
    split = (trained / "training" / "split.csv").read_text().splitlines()
    assert len(split) == 7
    assert sum(line.endswith(",val") for line in split) == 2
    assert sorted(path.name for path in (trained / "training").iterdir()) == [
        "finished.json",
        "learning_curve.svg",
        "metrics.csv",
        "split.csv",
    ]
    assert "## Training\n```bash\nwsi-attention" in (trained / "README.md").read_text()


def test_slides_that_trained_the_model_do_not_judge_it_in_silence(
    slide_set: Path, trained: Path, tmp_path: Path
) -> None:
    done = CliRunner().invoke(app, ["classify", "-i", str(slide_set), "-o", str(tmp_path), "-m", str(trained)])
    assert done.exit_code == 0, done.output
    rows = (tmp_path / "predictions.csv").read_text()
    assert (rows.count("this slide trained the model"), rows.count("helped to choose the model")) == (4, 2)
    said = CliRunner().invoke(app, ["evaluate", "-p", str(tmp_path), "-l", str(slide_set / "labels.csv")]).output
    assert "4 of these 6 slides trained this model" in said
    assert "2 of these 6 slides validated this model" in said
    assert "benign (specificity)" in said


def test_a_renamed_training_slide_is_known_and_another_slide_of_its_name_is_not(
    slide_set: Path, trained: Path, tmp_path: Path
) -> None:
    used = {
        row["slide"]: row["split"] for row in csv.DictReader((trained / "training/split.csv").read_text().splitlines())
    }
    first = next(name for name, part in used.items() if part == "train")
    (tmp_path / "s").mkdir()
    shutil.copy(slide_set / f"{first}.svs", tmp_path / "s/new.svs")
    write_slide(tmp_path / f"s/{first}.svs", SlideSpec(size=(1024, 1000), seed=77, label="lesion", lesion_scale=8))
    (tmp_path / "labels.csv").write_text(f"slide,label\nnew,benign\n{first},lesion\n")
    given = ["classify", str(tmp_path / "s"), "-o", str(tmp_path / "out"), "-m", str(trained), "--what", "tiles"]
    assert CliRunner().invoke(app, [*given, "--in-process"]).exit_code == 0
    said = CliRunner().invoke(app, ["evaluate", "-p", str(tmp_path / "out"), "-l", str(tmp_path / "labels.csv")]).output
    assert "1 of these 2 slides trained this model: new" in said and "are called" not in said
    shutil.rmtree(tmp_path / "out/states")
    said = CliRunner().invoke(app, ["evaluate", "-p", str(tmp_path / "out"), "-l", str(tmp_path / "labels.csv")]).output
    assert f"1 of these 2 slides are called as slides that this model was trained with: {first}" in said


def test_the_card_says_how_sure_its_figures_are(trained: Path) -> None:
    config = load_model(trained).config
    low, high = config["metrics"]["validation accuracy, 95 %"]
    assert 0 <= low < config["metrics"]["validation accuracy"] <= high or low <= 0.1
    assert high - low > 0.5
    assert (config["negative"], config["metrics"]["validation patients"]) == ("benign", 2)
    page = (trained / "README.md").read_text()
    assert "1. benign (nothing found)" in page
    assert "Validation slides chose the epoch too" in page


def test_where_the_last_epoch_is_kept_nothing_says_that_slides_chose_it(slide_set: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "last.toml"
    recipe.write_text('best = "last"\n' + RECIPE)
    said = run(slide_set, tmp_path / "model", "--config", str(recipe))
    epochs = load_model(tmp_path / "model").config["metrics"]
    assert epochs["best epoch"] == epochs["epochs"] > 1
    assert f"the last of {epochs['epochs']} epochs: validation" in said
    assert "chose the epoch" not in said + (tmp_path / "model/README.md").read_text()


def test_killed_and_resumed_is_the_undisturbed_run(slide_set: Path, trained: Path, tmp_path: Path) -> None:
    output = tmp_path / "killed"
    code = "from wsi_attention.cli import main; main()"
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, "-c", code, *arguments(slide_set, output)]
    process = warm_python.Popen(command, env=os.environ | threads, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (output / "training" / "state.safetensors").is_file():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (output / "config.json").exists()
    assert "going on after epoch" in run(slide_set, output)
    assert contents(output) == contents(trained)


def test_a_finished_folder_is_left_as_it_is(slide_set: Path, trained: Path) -> None:
    before = contents(trained)
    assert "finished already after 3 epochs" in run(slide_set, trained)
    assert contents(trained) == before


def test_another_recipe_or_other_labels_are_refused(slide_set: Path, trained: Path, tmp_path: Path) -> None:
    before = contents(trained)
    with pytest.raises(InputError, match=r"a different recipe; choose another output folder, or --overwrite"):
        run(slide_set, trained, "--epochs", "4")
    labels = tmp_path / "labels.csv"
    labels.write_text((slide_set / "labels.csv").read_text().replace("s0,benign", "s0,lesion"))
    with pytest.raises(InputError, match="a different labels"):
        run(slide_set, trained, "-l", str(labels))
    assert contents(trained) == before


def test_overwrite_begins_anew_and_touches_nothing_else(slide_set: Path, tmp_path: Path) -> None:
    output = tmp_path / "model"
    output.mkdir()
    (output / "notes.txt").write_text("mine")
    run(slide_set, output, "--epochs", "1")
    first = load_model(output).weights_sha256
    assert "best of 1 epochs" in run(slide_set, output, "--epochs", "1", "--seed", "5", "--overwrite")
    assert load_model(output).weights_sha256 != first
    assert (output / "notes.txt").read_text() == "mine"


def test_a_slip_in_the_call_costs_no_model(slide_set: Path, trained: Path, tmp_path: Path) -> None:
    before = contents(trained)
    with pytest.raises(InputError, match=r"none.csv does not exist"):
        run(slide_set, trained, "--overwrite", "-l", str(tmp_path / "none.csv"))
    with pytest.raises(ModelError, match="no model folder nowhere"):
        run(slide_set, trained, "--overwrite", "--start", "nowhere")
    assert contents(trained) == before


def test_it_starts_from_an_earlier_model_but_with_its_own_colours(
    slide_set: Path, trained: Path, tmp_path: Path
) -> None:
    still = RECIPE.replace("epochs = 3", 'epochs = 1\nstatistics = "tissue"').replace("0.003", "1e-9")
    (tmp_path / "recipe.toml").write_text(still)
    run(slide_set, tmp_path / "m", "--start", str(trained), "--config", str(tmp_path / "recipe.toml"))
    new, old = load_model(tmp_path / "m"), load_model(trained)
    torch.testing.assert_close(new.model.encoder.project.weight, old.model.encoder.project.weight)
    torch.testing.assert_close(new.model.preprocess.mean.flatten(), torch.tensor(new.config["mean"]))
    assert new.config["mean"] != old.config["mean"]


def test_a_model_may_start_from_the_one_it_replaces(slide_set: Path, trained: Path, tmp_path: Path) -> None:
    output = tmp_path / "again"
    shutil.copytree(trained, output)
    run(slide_set, output, "--start", str(output), "--overwrite", "--epochs", "1")
    assert load_model(output).config["recipe"]["epochs"] == 1


def test_a_model_from_elsewhere_is_never_touched(slide_set: Path, trained: Path, tmp_path: Path) -> None:
    output = tmp_path / "foreign"
    output.mkdir()
    (output / "config.json").write_text("{}")
    for more in ((), ("--overwrite",)):
        with pytest.raises(InputError, match="was not trained there"):
            run(slide_set, output, *more)
    assert contents(output) == {"config.json": hashlib.sha256(b"{}").hexdigest()}


def test_a_broken_and_an_empty_slide_are_left_out(slide_set: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "broken.svs").write_bytes(b"II*\0 no slide")
    write_slide(tmp_path / "more" / "blank.svs", SlideSpec(size=(600, 600), coverage=0.0))
    labels = tmp_path / "labels.csv"
    labels.write_text((slide_set / "labels.csv").read_text() + "broken,benign\nblank,benign\n")
    output = run(slide_set, tmp_path / "m", "-i", str(tmp_path / "more"), "-l", str(labels), "--epochs", "1")
    assert "left out: broken: " in output
    assert load_model(tmp_path / "m").config["metrics"]["slides left out"] >= 1


def test_the_tissue_gives_the_colours(slide_set: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.replace("epochs = 3", 'epochs = 1\nstatistics = "tissue"'))
    run(slide_set, tmp_path / "m", "--config", str(recipe))
    config = load_model(tmp_path / "m").config
    assert config["mean"] == config["options"]["mean"]
    assert config["mean"][1] < min(config["mean"][0], config["mean"][2])  # pink and violet absorb green most
    assert all(0.02 < value < 0.4 for value in config["std"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[model]\ndraw = 3", r"recipe \[model\] of method grow: unknown key 'draw'; did you mean 'draws'\?"),
        ("method = 'zoom-in'\n[model]\ninference = 'best'", "inference is 'best'; possible: top, sample, as-released"),
        ("method = 'atz'", "no model named 'atz'; installed: .*ats"),
    ],
)
def test_recipe_slips(slide_set: Path, tmp_path: Path, text: str, message: str) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(text)
    with pytest.raises(InputError, match=message):
        run(slide_set, tmp_path / "m", "--config", str(recipe))
    assert not (tmp_path / "m").exists()


def test_training_can_start_from_an_earlier_model(slide_set: Path, trained: Path, tmp_path: Path) -> None:
    recipe = RECIPE.replace("learning_rate = 0.003", "learning_rate = 1e-9").replace("epochs = 3", "epochs = 1")
    (tmp_path / "still.toml").write_text(recipe)
    run(slide_set, tmp_path / "on", "--config", str(tmp_path / "still.toml"), "--start", str(trained))
    before, after = (load_model(str(folder)).model.state_dict() for folder in (trained, tmp_path / "on"))
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)
    (tmp_path / "wide.toml").write_text(recipe.replace("features = 16", "features = 8"))
    with pytest.raises(InputError, match=r"the weights of .*straight do not fit this recipe: .*size mismatch"):
        run(slide_set, tmp_path / "no", "--config", str(tmp_path / "wide.toml"), "--start", str(trained))


def test_which_image_is_the_slide_is_asked_and_can_be_said(slide_set: Path, tmp_path: Path) -> None:
    told = {"photometric": "rgb", "tile": (128, 128), "resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"}
    for path in slide_set.glob("*.svs"):
        pixels = tifffile.imread(path, key=0)
        with tifffile.TiffWriter(tmp_path / f"{path.stem}.tif") as file:
            for image in (255 - pixels, pixels):
                file.write(image, compression="zlib", **told)
    for name in ("labels.csv", "recipe.toml"):
        shutil.copy(slide_set / name, tmp_path)
    with pytest.raises(InputError, match="choose one with --series"):
        CliRunner().invoke(app, arguments(tmp_path, tmp_path / "m"), catch_exceptions=False)
    assert "0 slides left out" in run(tmp_path, tmp_path / "m", "--series", "1", "--epochs", "1")
    with pytest.raises(InputError, match="different slides"):
        run(tmp_path, tmp_path / "m", "--series", "0", "--epochs", "1")
