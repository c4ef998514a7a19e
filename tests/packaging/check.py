"""Build the sdist and the wheel, look at what is in them, install the wheel and classify with it, far from the source.

    python tests/packaging/check.py [--python 3.11 --python 3.13] [--dist FOLDER] [pip's own options ...]

It needs `build` and `twine`. Each Python gets a fresh virtual environment in a
temporary folder; pip's own options, such as `--index-url`, are passed on. A line a step; the first failure ends it.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

from long_description import absolute

ROOT = Path(__file__).resolve().parents[2]
IN_WHEEL = (
    "cli/app.py",
    "py.typed",
    "shipped/demo/model.safetensors",
    "shipped/lymph-node-mosaic/model.safetensors",
    "shipped/recipes/ats.toml",
    "encoders/known.toml",
)
IN_SDIST = ("pyproject.toml", "README.md", "LICENSE", "tox.ini", "docs/glossary.md", "sample_slides/sample_01.svs")
IN_SDIST += ("tests/constraints.txt", "plugins/README.md", "Dockerfile")
MOST_MB = {"whl": 12.0, "gz": 40.0}
SLIDES = sorted(path.name for path in (ROOT / "sample_slides").glob("sample_*"))


def main() -> None:
    """Run all steps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--python", action="append", help="version or path of an interpreter; this one if none is named"
    )
    parser.add_argument("--dist", type=Path, help="folder with both files: looked at where they are there, else built")
    asked, options = parser.parse_known_args()
    with TemporaryDirectory() as folder:
        sdist, wheel = built(asked.dist or Path(folder) / "dist")
        check_names(sdist, wheel)
        run(sys.executable, "-m", "twine", "check", "--strict", str(sdist), str(wheel))
        for number, python in enumerate(asked.python or [sys.executable]):
            check_installed(python, wheel, Path(folder) / f"python-{number}", options)


def built(dist: Path) -> tuple[Path, Path]:
    """Return the sdist and the wheel; where they are not there, they are built, the wheel from the sdist.

    With the repository's address in WSI_ATTENTION_REPOSITORY, links and pictures of the long description lead there.
    """
    if not any(dist.glob("*.whl")):
        repository = os.environ.get("WSI_ATTENTION_REPOSITORY", "")
        with TemporaryDirectory() as folder:
            source = copied(Path(folder), repository) if repository else ROOT
            run(sys.executable, "-m", "build", "--outdir", str(dist), str(source))
    (sdist,), (wheel,) = dist.glob("*.tar.gz"), dist.glob("*.whl")
    return sdist, wheel


def copied(folder: Path, repository: str) -> Path:
    """Return a copy of the checkout whose README.md is what an index of packages shows."""
    source = folder / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".git", ".tox", ".*_cache", "__pycache__", "dist"))
    readme = source / "README.md"
    readme.write_text(absolute(readme.read_text(encoding="utf-8"), repository), encoding="utf-8")
    return source


def check_names(sdist: Path, wheel: Path) -> None:
    """Stop unless both files hold what they need, nothing of the other one, and are of a fair size."""
    with tarfile.open(sdist) as packed:
        there = {name.partition("/")[2] for name in packed.getnames()}
    with zipfile.ZipFile(wheel) as zipped:
        inside = set(zipped.namelist())
    require(not (lost := set(IN_SDIST) - there), f"the sdist lacks {sorted(lost)}")
    require(not (lost := {f"wsi_attention/{name}" for name in IN_WHEEL} - inside), f"the wheel lacks {sorted(lost)}")
    code = {str(path.relative_to(ROOT)) for path in (ROOT / "wsi_attention").rglob("*.py")}
    require(not (lost := code - inside), f"the wheel lacks {sorted(lost)}")
    tops = {name.split("/")[0] for name in inside}
    odd = {top for top in tops if top != "wsi_attention" and not re.fullmatch(r"wsi_attention-[\w.]+\.dist-info", top)}
    require(not odd, f"the wheel has {sorted(odd)}")
    for path in (sdist, wheel):
        size = path.stat().st_size / 1e6
        require(size <= MOST_MB[path.suffix[1:]], f"{path.name} has {size:.1f} MB")
        say(f"{path.name}: {size:.1f} MB, {len(there if path is sdist else inside)} names")


def check_installed(python: str, wheel: Path, place: Path, options: list[str]) -> None:
    """Install the wheel in a fresh environment and run the commands there, in a folder that holds slides alone."""
    run(python if Path(python).exists() else f"python{python}", "-m", "venv", str(place / "venv"))
    own = place / "venv" / ("Scripts" if os.name == "nt" else "bin")
    began = time.monotonic()
    run(str(own / "python"), "-m", "pip", "install", "-q", *options, str(wheel))
    say(f"installed in {time.monotonic() - began:.0f} s")
    slides = place / "slides"
    slides.mkdir()
    for slide in SLIDES:
        from_here = ROOT / "sample_slides" / slide
        (shutil.copytree if from_here.is_dir() else shutil.copy)(from_here, slides / slide)
    code = "import wsi_attention, sys; print(wsi_attention.__file__, sys.version.split()[0])"
    where = run(str(own / "python"), "-c", code, folder=place)
    require(str(place / "venv") in where, f"the package comes from {where}")
    say(where.strip())
    say(run(str(own / "wsi-attention"), "doctor", folder=place))
    began = time.monotonic()
    run(str(own / "wsi-attention"), "classify", "-i", "slides", "-o", "results", "-m", "demo", folder=place)
    table = (place / "results" / "predictions.csv").read_text(encoding="utf-8").splitlines()
    say(f"classified in {time.monotonic() - began:.1f} s")
    require(len(table) == 1 + len(SLIDES) and all(",done," in row for row in table[1:]), "\n".join(table))
    for row in table:
        say(row)


def run(*command: str, folder: Path | None = None) -> str:
    """Run a command without this checkout on Python's path; return what it printed, and stop where it fails."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ran = subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True, check=False)
    require(ran.returncode == 0, f"{' '.join(command)}: status {ran.returncode}\n{ran.stdout}\n{ran.stderr}")
    return ran.stdout


def require(holds: bool, otherwise: str) -> None:
    """Stop with a sentence where something does not hold."""
    if not holds:
        sys.exit(otherwise)


def say(text: str) -> None:
    """Print at once."""
    print(text, flush=True)


if __name__ == "__main__":
    main()
