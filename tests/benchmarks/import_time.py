"""Seconds to import the package, and to start Python: `python tests/benchmarks/import_time.py`.

Both run in turn, 15 times, and the medians are printed: the import is what one start takes more than the other.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time


def seconds(code: str) -> float:
    """A fresh interpreter's time from start to end."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - start


def main() -> None:
    """Print one line."""
    pairs = [(seconds("pass"), seconds("import wsi_attention")) for _ in range(15)]
    bare, whole = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"python {bare:.3f} s, with import wsi_attention {whole:.3f} s: {whole - bare:.3f} s")


if __name__ == "__main__":
    main()
