"""Turn a `.bin`, `.pth` or `.pt` file of weights into safetensors, in another process that loads tensors alone."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsi_attention.encoders.encoder_weights import METADATA
from wsi_attention.encoders.local_files import colours_beside
from wsi_attention.encoders.origin import NOBODY, Origin
from wsi_attention.encoders.places import PICKLES, SUFFIX
from wsi_attention.encoders.published import origin_of_path, published
from wsi_attention.encoders.table import entry_of, is_known
from wsi_attention.errors import InputError
from wsi_attention.files import remove, temporary
from wsi_attention.json_values import JsonObject, parse

PROCESS = "wsi_attention.encoders.conversion_process"
NAMED = 3
"""Most names left out that a report lists."""


@dataclass(frozen=True)
class About:
    """What the new file says of its weights.

    Attributes:
        mean: per-channel mean in [0, 1] with which they were trained; empty where unknown.
        std: per-channel standard deviation, likewise.
        origin: where they come from.
    """

    mean: Sequence[float] = ()
    std: Sequence[float] = ()
    origin: Origin = NOBODY

    def metadata(self, source: Path) -> dict[str, str]:
        """Return the metadata of the safetensors file; `source` is what it is made from."""
        made_from = {"made_from": source.name, "made_from_sha256": sha256_of(source)}
        told = {"mean": list(self.mean), "std": list(self.std), "origin": self.origin.as_dict(), **made_from}
        return {METADATA: json.dumps(told)}


@dataclass(frozen=True)
class Converted:
    """What a conversion led to.

    Attributes:
        path: the new file.
        tensors: how many it holds.
        inside: keys and prefixes under which they were found, from the outside in.
        left: names of what is not in the new file.
    """

    path: Path
    tensors: int
    inside: tuple[str, ...] = ()
    left: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """What was done, for people."""
        found = f", found under {' > '.join(self.inside)}" if self.inside else ""
        more = ", ..." if len(self.left) > NAMED else ""
        left = f"; left out {len(self.left)}: {', '.join(self.left[:NAMED])}{more}" if self.left else ""
        return f"{self.path}: {self.tensors} tensors{found}{left}"


def about_file(
    source: Path, encoder: str | None = None, mean: Sequence[float] = (), std: Sequence[float] = ()
) -> About:
    """Return what is known of a file of weights: of the encoder that was named, or of the folder in which it lies.

    Args:
        source: the file.
        encoder: whose weights they are, as in a recipe; None where nobody says.
        mean: in place of the mean that is known.
        std: in place of the standard deviation that is known.

    Raises:
        InputError: no such encoder, or only one of mean and std.
    """
    if len(mean) != len(std):
        raise InputError(f"mean has {len(mean)} values and std {len(std)}; give one of each a channel, or neither")
    origin = published(encoder) if encoder else origin_of_path(source)
    if encoder and not origin:
        entry_of(encoder)
    entry = entry_of(origin.name) if is_known(origin.name) else None
    known = (entry.mean, entry.std) if entry else colours_beside(source)
    return About(mean or known[0], std or known[1], origin)


def convert(source: Path, target: Path | None = None, about: About | None = None) -> Converted:
    """Write the tensors of a file as safetensors; the file is opened in another process that only loads tensors.

    Args:
        source: a file of torch.save.
        target: the new file; beside the old one, ending in .safetensors, where None.
        about: colours and origin, kept in the metadata.

    Raises:
        InputError: no such file, a pickle that holds more than tensors, or the new file cannot be written.
    """
    target = target or source.with_suffix(SUFFIX)
    if not source.is_file():
        raise InputError(f"{source} does not exist; give a file of weights ({', '.join(PICKLES)})")
    if source.suffix == SUFFIX or target.suffix != SUFFIX:
        raise InputError(f"convert turns {', '.join(PICKLES)} into {SUFFIX}, not {source} into {target}")
    made = temporary(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        made.touch()
        mode = made.stat().st_mode  # what is usual here; the library would let its owner alone read the file
        report = _in_another_process(source, made, (about or About()).metadata(source))
        made.chmod(mode)
        made.replace(target)
    except OSError as error:
        raise InputError(f"{target} cannot be written: {error.strerror or error}") from error
    finally:
        remove(made)
    return Converted(target, int(report["tensors"]), tuple(report["inside"]), tuple(report["left"]))


def _in_another_process(source: Path, target: Path, metadata: dict[str, str]) -> JsonObject:
    ran = subprocess.run(
        [sys.executable, "-m", PROCESS, str(source), str(target)],
        input=json.dumps(metadata),
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        report = parse(ran.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        said = (ran.stderr.strip().splitlines() or [f"it ended with status {ran.returncode}"])[-1]
        raise InputError(f"{source} cannot be converted: the process that read it failed ({said})") from None
    if "refused" in report:
        raise InputError(f"{source} is not converted: {report['refused']}")
    return dict(report)


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
