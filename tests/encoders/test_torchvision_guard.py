"""timm is usable where torchvision is missing or of another build, and the process is as before afterwards."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from wsi_attention.encoders import torchvision_guard as guard
from wsi_attention.encoders.libraries import timm_package
from wsi_attention.errors import MissingExtraError

BROKEN = "raise RuntimeError('operator torchvision::nms does not exist')\n"
LIBRARY = """
import torchvision
import torchvision.transforms.functional as F
from torchvision import datasets
from torchvision.ops.misc import FrozenBatchNorm2d
from torchvision.transforms import Compose, InterpolationMode
MODES = {InterpolationMode.BILINEAR: 2, InterpolationMode.BICUBIC: 3}
class Mine(FrozenBatchNorm2d): ...
DATASETS = {'cifar': datasets.CIFAR10}
__version__ = '9'
"""


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder first on the path, with a torchvision of another build."""
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(str(tmp_path))
    kept = {
        name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in ("torchvision", "timm")
    }
    guard.torchvision_problem.cache_clear()
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] in ("torchvision", "timm")]:
        del sys.modules[name]
    sys.modules.update(kept)
    guard.torchvision_problem.cache_clear()


def library(folder: Path, text: str) -> None:
    (folder / "timm").mkdir()
    (folder / "timm" / "__init__.py").write_text(text)


def test_a_library_that_imports_a_broken_torchvision_is_had_nevertheless(broken: Path) -> None:
    library(broken, LIBRARY)
    finders = list(sys.meta_path)
    timm = timm_package()
    assert timm.__version__ == "9" and sorted(timm.MODES.values()) == [2, 3]
    assert guard.torchvision_problem() == "operator torchvision::nms does not exist"
    assert sys.meta_path == finders
    assert not [name for name in sys.modules if name.partition(".")[0] == "torchvision"]
    with pytest.raises(RuntimeError, match="nms does not exist"):
        __import__("torchvision")


def test_whoever_uses_what_is_missing_is_told_which_pair_to_install(broken: Path) -> None:
    library(broken, LIBRARY)
    with pytest.raises(
        MissingExtraError, match=r"^Compose needs torchvision.*nms does not exist.*pip install .*torch==\d"
    ):
        timm_package().Compose([])


def test_a_missing_torchvision_is_as_good_as_a_broken_one(broken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    library(broken, LIBRARY)
    assert timm_package().__version__ == "9"
    assert "torchvision" in guard.torchvision_problem()


def test_a_library_that_fails_all_the_same_is_one_sentence_with_the_pair(broken: Path) -> None:
    library(broken, "raise ImportError('no such symbol')\n")
    message = (
        r"timm is installed but cannot be loaded \(no such symbol\), nor can torchvision .*: pip install .*torchvision"
    )
    with pytest.raises(MissingExtraError, match=message) as caught:
        timm_package()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("version", "command"),
    [("2.14.1+cpu", "pip install --force-reinstall torch==2.14.1 torchvision --index-url "
                    "https://download.pytorch.org/whl/cpu"),
     ("2.14.1", "pip install --force-reinstall torch==2.14.1 torchvision")],
)  # fmt: skip
def test_the_pair_is_of_the_build_that_is_here(version: str, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.__version__", version)
    assert guard.matching_pair() == command


@pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed")
def test_the_real_timm_builds_and_runs_an_encoder_beside_a_broken_torchvision(tmp_path: Path) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(BROKEN)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import torch\n"
        "from wsi_attention.nn import TileEncoder\n"
        "from wsi_attention.nn.timm_encoder import timm_state\n"
        'encoder = TileEncoder(name=\'uni {"depth": 1, "embed_dim": 48, "num_heads": 3, "dim": 48}\').build()\n'
        "assert encoder(torch.randn(1, 3, 224, 224)).shape == (1, 48)\n"
        "print(timm_state())\n"
    )
    ran = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-1500:]
    assert "works, without torchvision, which cannot be imported (operator torchvision::nms" in ran.stdout
