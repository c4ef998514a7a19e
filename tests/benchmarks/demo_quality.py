"""How good the shipped demo model is on freshly generated slides that it never saw.

    python tests/benchmarks/demo_quality.py [--count 60] [--seed 500000] [--model demo] [--keep FOLDER]

Generates slides, classifies them and compares with the truth, by the public commands; prints AUROC with its
interval and how often the highest-weighted tile touches a lesion.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

SLIDE_SETS = Path(__file__).resolve().parents[1] / "support" / "slide_sets.py"


def run(*command: str) -> None:
    """Run one command and stop where it fails."""
    print("$", " ".join(command), flush=True)
    subprocess.run([sys.executable, *command], check=True)


def main() -> None:
    """Generates, classifies, evaluates."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=500_000)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--keep", type=Path, help="work in this folder and leave it")
    options = parser.parse_args()
    with TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        slides, results = str(folder / "slides"), str(folder / "results")
        run(str(SLIDE_SETS), slides, "--count", str(options.count), "--seed", str(options.seed))
        run(
            "-m",
            "wsi_attention.cli",
            "classify",
            "-i",
            slides,
            "-o",
            results,
            "-m",
            options.model,
            "-n",
            "2",
            "--what",
            "tiles",
        )
        table, labels = f"{results}/predictions.csv", f"{slides}/labels.csv"
        run("-m", "wsi_attention.cli", "evaluate", "-p", table, "-l", labels, "-g", f"{slides}/groundtruth")


if __name__ == "__main__":
    main()
