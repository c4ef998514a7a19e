"""MONAI: the transforms in its own pipelines, and the bundle run and verified by its own commands."""

from __future__ import annotations

import csv
import json
import os
import pickle
import shutil
import subprocess
import sys
import warnings
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wsi_attention import load_model, open_slide, predict
from wsi_attention.errors import InputError, ModelError, SlideOpenError

if find_spec("monai") is None or find_spec("wsi_attention_monai") is None:
    pytest.skip("needs monai and plugins/monai: tox run -e plugin-monai", allow_module_level=True)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch
    import wsi_attention_monai as plugin
    from monai.bundle import ConfigWorkflow, verify_metadata
    from monai.data import DataLoader, Dataset, MetaTensor, PatchWSIDataset, pad_list_data_collate
    from monai.transforms import Compose, ToTensord

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "sample_slides"
SLIDE = SAMPLES / "sample_01.svs"
BUNDLE = ROOT / "plugins" / "monai" / "bundle"


@pytest.fixture(scope="module")
def classifier() -> Any:
    return load_model("demo")


@pytest.fixture(scope="module")
def direct(classifier: Any) -> Any:
    with open_slide(SLIDE) as slide:
        return predict(slide, classifier)


@pytest.fixture(scope="module")
def found(classifier: Any) -> dict[str, Any]:
    return plugin.AttentionClassify(classifier)(SLIDE)


def test_the_transform_gives_what_predict_gives(found: dict[str, Any], direct: Any) -> None:
    assert (found["label"], found["purpose"]) == (direct.label, "demonstration")
    assert (found["spread"], found["unread_mass"]) == (direct.spread, direct.unread_mass)
    np.testing.assert_allclose(found["probabilities"], direct.probabilities, rtol=1e-6)
    np.testing.assert_array_equal(found["boxes"], direct.glimpses[0].tiles.boxes[0])
    np.testing.assert_allclose(found["weights"], direct.glimpses[0].weights, rtol=1e-6)
    assert (found["probabilities"].dtype, found["boxes"].dtype) == (torch.float32, torch.int64)


def test_the_attention_map_lies_on_the_slide(found: dict[str, Any], direct: Any) -> None:
    attention = found["attention"]
    assert isinstance(attention, MetaTensor)
    grid = direct.maps[0].grid
    assert attention.shape == (1, *grid.shape)
    cell = int(np.nanargmax(direct.maps[0].values))
    row, col = divmod(cell, grid.cols)
    y, x, _, _ = attention.affine.numpy() @ [row + 0.5, col + 0.5, 0, 1]
    np.testing.assert_allclose([x, y], grid.centres(np.array(cell)))
    assert int(np.nanargmax(attention.numpy())) == cell


def test_in_a_pipeline_of_monai(classifier: Any, found: dict[str, Any]) -> None:
    transform = Compose(
        [plugin.AttentionClassifyd("image", classifier), ToTensord("image_probabilities", track_meta=False)]
    )
    data = Dataset(
        [{"image": str(SLIDE), "case": "a"}, {"image": str(SAMPLES / "sample_02.svs"), "case": "b"}], transform
    )
    (batch,) = DataLoader(data, batch_size=2, num_workers=0, collate_fn=pad_list_data_collate)
    assert batch["image_label"] == ["lesion", "benign"]
    assert batch["case"] == ["a", "b"]
    np.testing.assert_allclose(batch["image_probabilities"][0], found["probabilities"], rtol=1e-6)
    assert batch["image_boxes"].shape[-1] == 4


def test_tiles_go_on_to_monai_s_patches(found: dict[str, Any]) -> None:
    import openslide

    items = plugin.patches_of(str(SLIDE), found["boxes"], found["weights"])
    assert items[0]["weight"] == max(item["weight"] for item in items)
    data = PatchWSIDataset(items[:3], reader="OpenSlide", center_location=False, include_label=False)
    with openslide.OpenSlide(SLIDE) as slide:
        for number, item in enumerate(items[:3]):
            (top, left), (height, width) = item["location"], item["size"]
            expected = np.asarray(slide.read_region((left, top), 0, (width, height)).convert("RGB"))
            np.testing.assert_array_equal(np.moveaxis(data[number]["image"].numpy(), 0, -1), expected)


def test_it_takes_what_a_reader_of_monai_remembers(classifier: Any, found: dict[str, Any]) -> None:
    loaded = MetaTensor(torch.zeros(3, 4, 4), meta={"filename_or_obj": str(SLIDE)})
    assert torch.equal(plugin.AttentionClassify(classifier)(loaded)["boxes"], found["boxes"])


def test_it_pickles_without_its_model(found: dict[str, Any]) -> None:
    transform = plugin.AttentionClassifyd("image", "demo")
    transform({"image": str(SLIDE)})
    sent = pickle.dumps(transform)
    assert len(sent) < 2000
    assert torch.equal(pickle.loads(sent)({"image": str(SLIDE)})["image_boxes"], found["boxes"])


def test_an_item_s_own_mpp(classifier: Any) -> None:
    given = plugin.AttentionClassifyd("image", classifier)({"image": str(SLIDE), "mpp": 0.25})
    width = given["image_boxes"][0, 2]
    assert (int(width), given["image_attention"].meta["mpp"]) == (512, 0.25)


def test_refusals(classifier: Any, tmp_path: Path) -> None:
    transform = plugin.AttentionClassify(classifier)
    with pytest.raises(InputError, match="a slide's path is needed, found Tensor"):
        transform(torch.zeros(3, 4, 4))
    with pytest.raises(SlideOpenError, match="nothing-here"):
        transform(tmp_path / "nothing-here.svs")
    with pytest.raises(ModelError, match="no model folder nonsense"):
        plugin.AttentionClassify("nonsense")(SLIDE)
    with pytest.raises(KeyError, match="image"):
        plugin.AttentionClassifyd("image", classifier)({"label": 1})
    assert plugin.AttentionClassifyd("image", classifier, allow_missing_keys=True)({"label": 1}) == {"label": 1}
    with pytest.raises(InputError, match="no such folder"):
        plugin.slides_in(tmp_path / "none")


def test_a_model_that_reads_no_tiles(small_model: Any) -> None:
    found = plugin.AttentionClassify(small_model("oaa"))(SLIDE)
    assert found["boxes"].shape == (0, 4)
    assert found["weights"].shape == (0,)


def test_the_bundle_has_all_properties_of_an_inference_bundle() -> None:
    workflow = ConfigWorkflow(
        config_file=str(BUNDLE / "configs/inference.json"),
        meta_file=str(BUNDLE / "configs/metadata.json"),
        workflow_type="inference",
        logging_file=False,
        bundle_root=str(BUNDLE),
        dataset_dir=str(SAMPLES),
        device="$torch.device('cpu')",
        model="demo",
    )
    workflow.initialize()
    assert workflow.check_properties() == []
    assert [Path(item["image"]).name for item in workflow.dataset][:2] == ["sample_01.svs", "sample_02.svs"]
    pred = workflow.inferer([str(SLIDE)], workflow.network_def)
    assert (pred.shape, pred.dtype) == ((1, 2), torch.float32)


def test_the_bundle_runs_as_a_command(tmp_path: Path) -> None:
    pytest.importorskip("fire")
    slides = tmp_path / "slides"
    slides.mkdir()
    for name in ("sample_01.svs", "sample_02.svs"):
        shutil.copy(SAMPLES / name, slides)
    (slides / "broken.svs").write_bytes(b"no slide")
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/inference.json", "--meta_file"]
    command += ["configs/metadata.json", "--bundle_root", str(tmp_path), "--output_dir", str(tmp_path / "out")]
    unnamed = subprocess.run(command, cwd=BUNDLE, capture_output=True, text=True, check=False)
    assert unnamed.returncode != 0 and "no model was given" in unnamed.stderr
    command += ["--model", "demo"]
    ran = subprocess.run(command, cwd=BUNDLE, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    with (tmp_path / "out/predictions.csv").open(newline="") as file:
        rows = {row["slide"]: (row["status"], row["label"]) for row in csv.DictReader(file)}
    assert rows == {"broken": ("failed", ""), "sample_01": ("done", "lesion"), "sample_02": ("done", "benign")}
    assert (tmp_path / "out/geojson/sample_01.geojson").is_file()


def test_the_metadata_passes_monai_s_own_verification(tmp_path: Path) -> None:
    """Its schema comes from the network; MONAI_META_SCHEMA names a copy where there is none."""
    pytest.importorskip("jsonschema")
    schema, meta = tmp_path / "schema.json", BUNDLE / "configs/metadata.json"
    if "MONAI_META_SCHEMA" in os.environ:
        shutil.copy(os.environ["MONAI_META_SCHEMA"], schema)
    try:
        verify_metadata(meta_file=str(meta), filepath=str(schema))
    except OSError as error:
        pytest.skip(f"the schema cannot be downloaded here ({error}); name a copy with MONAI_META_SCHEMA")
    without = {key: value for key, value in json.loads(meta.read_text()).items() if key != "authors"}
    (tmp_path / "bad.json").write_text(json.dumps(without))
    with pytest.raises(ValueError, match="Failed validating"):
        verify_metadata(meta_file=str(tmp_path / "bad.json"), filepath=str(schema))


def test_the_metadata_tells_the_truth(classifier: Any) -> None:
    meta = json.loads((BUNDLE / "configs/metadata.json").read_text())
    assert meta["monai_version"] == version("monai")
    assert meta["pytorch_version"] == version("torch").split("+")[0]
    assert meta["numpy_version"] == version("numpy")
    assert meta["required_packages_version"]["wsi-attention"] == version("wsi-attention")
    pred = meta["network_data_format"]["outputs"]["pred"]
    assert tuple(pred["channel_def"].values()) == classifier.classes
    (score,) = meta["eval_metrics"].values()
    assert score == round(classifier.config["metrics"]["validation AUROC"], 3)
