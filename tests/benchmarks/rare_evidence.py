"""How often a label rests on tiles that show none of what decides, and what stopping makes of it.

    python tests/benchmarks/rare_evidence.py [--runs 300]

The slide of `rare_slide`: 400 tiles, 8 of them decide, attention sees no difference, 32 tiles
a look. Stopping at a standard error of 0.02: by the error alone (`--unread 1`), and by error and unread mass, as
`--tolerance` does.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "support"))

from rare_slide import measure

ROWS = {
    "32 tiles, no stopping": (None, None),
    "until 0.02 by the error alone": (0.02, 1.0),
    "until 0.02 by error and unread mass 0.2": (0.02, 0.2),
    "until 0.02 by error and unread mass": (0.02, None),
}


def main() -> None:
    """Print a row a way of stopping, and the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=300)
    runs = parser.parse_args().runs
    found = {name: measure(32, tolerance, unread, runs) for name, (tolerance, unread) in ROWS.items()}
    print(f"{'':42}{'covered':>9}{'none met':>10}{'wrong label':>13}{'tiles':>8}")
    for name, row in found.items():
        print(f"{name:42}{row.covered:9.2f}{row.covered_unseen:10.2f}{row.wrong:13.3f}{row.tiles:8.0f}")
    print(json.dumps({name: row._asdict() for name, row in found.items()}))


if __name__ == "__main__":
    main()
