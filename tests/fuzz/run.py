"""Fuzz `wsi-attention classify`: as many mutants as are asked for, each from its seed alone.

python tests/fuzz/run.py --seed 0 --count 1000 --jobs 2
python tests/fuzz/run.py --seed 123              # that mutant again, kept to look at
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.append(str(Path(__file__).resolve().parents[1] / "support"))

from campaign import Batch, Finding, Told, culprits, run_batch
from mutants import make, write_sound

BATCH = 20


def main() -> int:
    """Run what the arguments ask for; 1 where something was found."""
    asked = _arguments()
    keep = Path(asked.keep)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        place, sound = Path(folder), Path(folder) / "sound"
        write_sound(sound)
        seeds = asked.seeds or list(range(asked.seed, asked.seed + asked.count))
        batches = [seeds[at : at + asked.batch] for at in range(0, len(seeds), asked.batch)]
        if len(batches) > 1:
            run_batch([], place / "good", sound)  # what the good slides give when they are alone
        with ThreadPoolExecutor(asked.jobs) as pool:
            done = list(pool.map(lambda some: _one(some, place, sound, keep), batches))
    return _summary(done, keep, len(seeds) == 1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of the first mutant")
    parser.add_argument("--count", type=int, default=1, help="of mutants, one seed after the other")
    parser.add_argument("--seeds", type=int, nargs="*", help="of these mutants instead")
    parser.add_argument("--batch", type=int, default=BATCH, help="mutants in one run of classify")
    parser.add_argument("--jobs", type=int, default=1, help="batches side by side")
    parser.add_argument("--keep", default="fuzz-findings", help="folder for mutants that something was found with")
    return parser.parse_args()


def _one(seeds: list[int], place: Path, sound: Path, keep: Path) -> tuple[Batch, list[Finding]]:
    folder = place / f"batch-{seeds[0]}"
    batch = run_batch(seeds, folder, sound)
    found = culprits(batch, folder, sound)
    wanted = {one.seed for one in found if one.seed is not None} | (set(seeds) if len(seeds) == 1 else set())
    for seed in wanted:
        keep.mkdir(parents=True, exist_ok=True)
        _forget(keep, seed)
        make(seed, keep, sound)
    print(_told(seeds, batch, found), flush=True)
    shutil.rmtree(folder)
    return batch, found


def _told(seeds: list[int], batch: Batch, found: list[Finding]) -> str:
    """A line on the batch, and what was found in it."""
    mutants = {mutant.seed: mutant for mutant in batch.mutants}
    rows = dict(Counter(_status(one) for mutant in batch.mutants for one in batch.of(mutant)))
    ended = f"{batch.ended.seconds:.0f} s, {batch.ended.memory / 1e6:.0f} MB, {len(found)} findings, {rows}"
    lines = [f"seeds {seeds[0]} to {seeds[-1]}: {ended}" if seeds else ended]
    for one in found:
        mutant = mutants.get(one.seed) if one.seed is not None else None
        about = f"{mutant.base} {mutant.mutation}: {mutant.change.what}" if mutant else "the batch"
        lines.append(f"[{one.kind}] {one.seed} {about}\n    {one.text}")
    return "\n".join(lines)


def _forget(keep: Path, seed: int) -> None:
    for old in keep.glob(f"*-{seed}*"):
        if old.name.rpartition("-")[2].partition(".")[0] == str(seed):
            (shutil.rmtree if old.is_dir() else Path.unlink)(old)


def _summary(done: list[tuple[Batch, list[Finding]]], keep: Path, alone: bool) -> int:
    kinds = [one.kind for _, found in done for one in found]
    statuses = Counter(_status(one) for batch, _ in done for mutant in batch.mutants for one in batch.of(mutant))
    if alone:
        batch = done[0][0]
        print(f"{keep / batch.mutants[0].path.name}: {batch.mutants[0].mutation}: {batch.mutants[0].change}")
        print("\n".join(json.dumps(one.row) for one in batch.of(batch.mutants[0])))
    print(f"{sum(len(batch.mutants) for batch, _ in done)} mutants, rows: {dict(statuses)}")
    print(f"most memory of a run: {max(batch.ended.memory for batch, _ in done) / 1e6:.0f} MB")
    print(f"findings: {dict(Counter(kinds))}")
    return int(bool(kinds))


def _status(told: Told) -> str:
    return "done with a note" if told.row["status"] == "done" and told.notes else told.row["status"]


if __name__ == "__main__":
    sys.exit(main())
