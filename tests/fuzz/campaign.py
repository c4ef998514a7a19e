"""Batches of mutants among good slides, through the real command line, and what must hold whatever they are."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import warm_python
from base_slides import BASES
from mutant import Mutant
from mutants import make

ROOT = Path(__file__).resolve().parents[2]
GOOD = ("svs", "zip-0.5")
"""Formats of the good slides in every batch."""
SLIDE_LIMIT, BATCH_LIMIT = 30, 300
"""Seconds."""
MOST_MEMORY = 1.2e9
"""Bytes that all processes of a run may take together."""
RAW = re.compile(
    r"Traceback|unexpected [A-Z]|unexpected error|Errno|\b[A-Za-z]*(Error|Exception)\b|NoneType|has no attribute"
    r"|not subscriptable|not iterable|positional argument|index out of|out of range|to unpack|invalid literal"
    r"|could not broadcast|must be str|not supported between|zip\(\)|struct\.|0x[0-9a-f]{6}|<class|numpy"
    r"|__\w+__(?!\.py)|cannot convert|codec can't"
)
"""What a user does not understand: words of a program's inside."""
NUMBERS = ("status", "label", "prob_benign", "prob_lesion", "tiles_read", "area_read", "reason", "notes")


@dataclass(frozen=True)
class Finding:
    """Something that must not be: its kind, the mutant's seed (None for the batch), and what was seen."""

    kind: str
    seed: int | None
    text: str


@dataclass(frozen=True)
class Ended:
    """How a run of the command ended.

    Attributes:
        status: exit status; None where it had to be ended.
        seconds: it took.
        memory: bytes that its processes had together at most.
        errors: what it wrote to stderr.
    """

    status: int | None
    seconds: float
    memory: int
    errors: str


@dataclass(frozen=True)
class Told:
    """What the results say of one file.

    Attributes:
        path: of the file.
        row: of the table.
        tiles: the table of tiles, where there is one.
        notes: those that the good slides do not have too, such as the one on what the model is for.
    """

    path: Path
    row: dict[str, str]
    tiles: Path
    notes: tuple[str, ...] = ()

    @property
    def answered(self) -> bool:
        """True where it has an answer without any objection."""
        return self.row["status"] == "done" and not self.row["reason"] and not self.notes


@dataclass(frozen=True)
class Batch:
    """A batch that was run: its mutants, how it ended, what the results say, and what is wrong with it."""

    mutants: tuple[Mutant, ...]
    ended: Ended
    told: tuple[Told, ...]
    findings: tuple[Finding, ...]

    def of(self, mutant: Mutant) -> list[Told]:
        """What is told of a mutant: one row, or several where a series is not taken as one."""
        return [one for one in self.told if one.path == mutant.path or mutant.path in one.path.parents]


def run_batch(seeds: Sequence[int], folder: Path, sound: Path) -> Batch:
    """Make the mutants of the seeds, classify them among good slides, and check everything.

    Args:
        seeds: of the mutants.
        folder: a new folder for slides and results.
        sound: where `write_sound` has written the sound slides; what the good ones give is kept there too.
    """
    for name in ("slides", "home", "temporary", "here"):
        (folder / name).mkdir(parents=True)
    good = [_good(base, folder / "slides", sound) for base in GOOD]
    mutants = tuple(make(seed, folder / "slides", sound) for seed in seeds)
    before = _tree(folder)
    ended = _classify(folder)
    told = tuple(_told(folder / "results", good))
    batch = Batch(mutants, ended, told, ())
    findings = [*_of_run(ended), *_of_good(told, good, sound), *_of_folder(folder, before)]
    for mutant in mutants:
        findings += of_rows(mutant, batch.of(mutant))
    if ended.status is not None:
        findings += _of_pixels(batch, folder, sound)
    return Batch(mutants, ended, told, tuple(findings))


def _good(base: str, folder: Path, sound: Path) -> Path:
    """A copy of a good slide, named to come in the middle of the batch or last."""
    source = sound / f"{base}{BASES[base][0]}"
    target = folder / f"{'m' if base == GOOD[0] else 'zz'}-good-{source.name}"
    shutil.copyfile(source, target)
    return target


def _classify(folder: Path) -> Ended:
    environment = os.environ | {
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "temporary"),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "wsi_attention.cli", "classify", "-m", "demo", "--limit", str(SLIDE_LIMIT)]
    command += ["-i", str(folder / "slides"), "-o", str(folder / "results")]
    start = time.monotonic()
    with (folder / "stderr.txt").open("wb") as errors:
        process = subprocess.Popen(
            command, cwd=folder / "here", env=environment, stdout=subprocess.DEVNULL, stderr=errors,
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        status, memory = _waited(process)
    text = (folder / "stderr.txt").read_text(errors="replace")
    (folder / "stderr.txt").unlink()
    return Ended(status, time.monotonic() - start, memory, text)


def _waited(process: subprocess.Popen[bytes]) -> tuple[int | None, int]:
    """The exit status, None where time was up, and the most memory that the process and its children had together."""
    end, most = time.monotonic() + BATCH_LIMIT, 0
    while process.poll() is None:
        most = max(most, _memory(process.pid))
        if time.monotonic() > end:
            os.killpg(process.pid, 9)
            process.wait()
            return None, most
        time.sleep(0.2)
    return process.returncode, most


def _memory(pid: int) -> int:
    """Bytes of a process and its children, pages that several share counted once."""
    with suppress(psutil.Error, OSError):
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        return sum(_own_memory(one) for one in family)
    return 0


def _own_memory(process: psutil.Process) -> int:
    rollup = Path(f"/proc/{process.pid}/smaps_rollup")
    with suppress(psutil.Error, OSError):
        if rollup.exists():
            return sum(int(line.split()[1]) * 1024 for line in rollup.read_text().splitlines() if line[:4] == "Pss:")
        return int(process.memory_info().rss)
    return 0


def _told(results: Path, good: Sequence[Path]) -> Iterable[Told]:
    table = results / "predictions.csv"
    if not table.exists():
        return
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    states = (json.loads((results / "states" / f"{row['slide']}.json").read_text()) for row in rows)
    paths = [Path(state["path"]) for state in states]
    usual = {note for path, row in zip(paths, rows, strict=True) if path in good for note in row["notes"].split("; ")}
    for path, row in zip(paths, rows, strict=True):
        notes = tuple(note for note in row["notes"].split("; ") if note and note not in usual)
        yield Told(path, row, results / "tiles" / f"{row['slide']}.csv", notes)


def _of_run(ended: Ended) -> Iterable[Finding]:
    if ended.status is None:
        yield Finding("hang", None, f"the batch had not ended after {BATCH_LIMIT} s")
    elif ended.status not in (0, 1):
        yield Finding("crash", None, f"exit status {ended.status}: {ended.errors[-400:]}")
    if "Traceback" in ended.errors:
        yield Finding("crash", None, f"a traceback: {ended.errors[-400:]}")
    if ended.memory > MOST_MEMORY:
        yield Finding("memory", None, f"{ended.memory / 1e6:.0f} MB")


def _of_good(told: Sequence[Told], good: Sequence[Path], sound: Path) -> Iterable[Finding]:
    """The good slides are done, with the numbers that they had in the first batch of all."""
    for path in good:
        row = next((one.row for one in told if one.path == path), None)
        if row is None or row["status"] != "done":
            yield Finding("good slide", None, f"{path.name}: {row and (row['status'], row['reason'])}")
            continue
        numbers = [row[name] for name in NUMBERS]
        known = sound / f"{path.name}.json"
        if not known.exists():
            known.write_text(json.dumps(numbers))
        if json.loads(known.read_text()) != numbers:
            yield Finding("good slide", None, f"{path.name}: {numbers}, not {known.read_text()}")


def _tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Every path below, with size and time of change."""
    found = {}
    for path in folder.rglob("*"):
        state = path.lstat()
        found[path.relative_to(folder).as_posix()] = (state.st_size, state.st_mtime_ns) if path.is_file() else (0, 0)
    return found


def _of_folder(folder: Path, before: dict[str, tuple[int, int]]) -> Iterable[Finding]:
    now = {name: state for name, state in _tree(folder).items() if name.split("/")[0] != "results"}
    changed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    changed += [str(path) for path in (folder.parent / "outside.txt", Path("/tmp/outside.txt")) if path.exists()]
    if changed:
        yield Finding("outside", None, f"not only the results were written: {', '.join(changed[:5])}")


def of_rows(mutant: Mutant, told: Sequence[Told]) -> Iterable[Finding]:
    if not told:
        yield Finding("no row", mutant.seed, "no row in predictions.csv")
    for one in told:
        status, reason = one.row["status"], one.row["reason"]
        if status not in ("done", "partial", "no_tissue", "failed"):
            yield Finding("no row", mutant.seed, f"status {status!r}")
        if status != "done" and (not reason or "\n" in reason or RAW.search(reason)):
            yield Finding("reason", mutant.seed, f"{status}: {reason}")
        if "not finished after" in reason:
            yield Finding("hang", mutant.seed, reason)
        if one.answered and mutant.change.lost:
            yield Finding(f"silent {mutant.change.lost}", mutant.seed, f"{one.row['label']} {one.row['prob_lesion']}")


def _of_pixels(batch: Batch, folder: Path, sound: Path) -> Iterable[Finding]:
    """Answers that nothing is said against, compared with the slide as it really is."""
    asked = [
        (mutant, one)
        for mutant in batch.mutants
        for one in batch.of(mutant)
        if one.answered and not mutant.change.lost and mutant.change.mpp is not None
    ]
    slides = [{"path": str(one.path), "tiles": str(one.tiles), "mpp": mutant.change.mpp} for mutant, one in asked]
    (folder / "asked.json").write_text(json.dumps(slides))
    command = [sys.executable, str(Path(__file__).with_name("seen.py"))]
    command += [str(folder / "asked.json"), str(sound / "truth.npy"), str(folder / "answer.jsonl")]
    (folder / "answer.jsonl").touch()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")])}
    warm_python.run(command, env=environment, timeout=BATCH_LIMIT, check=False, capture_output=True)
    answers = dict(json.loads(line) for line in (folder / "answer.jsonl").read_text().splitlines())
    for number, (mutant, one) in enumerate(asked):
        found = answers.get(number, ["reading it again ended the process"])
        if found:
            text = f"{one.row['label']} {one.row['prob_lesion']}; {len(found)} differences: {found[0]}"
            yield Finding("silent difference", mutant.seed, text)


def culprits(batch: Batch, folder: Path, sound: Path) -> list[Finding]:
    """Findings of a batch as a whole, each with the seed that brings it about alone, if one does."""
    of_batch = [one for one in batch.findings if one.seed is None]
    found = [one for one in batch.findings if one.seed is not None]
    if not of_batch:
        return found
    if len(batch.mutants) == 1:
        return found + [Finding(one.kind, batch.mutants[0].seed, one.text) for one in of_batch]
    named: list[Finding] = []
    for mutant in batch.mutants:
        alone = run_batch([mutant.seed], folder / f"alone-{mutant.seed}", sound)
        named += [Finding(one.kind, mutant.seed, one.text) for one in alone.findings if one.seed is None]
    return found + (named or of_batch)
