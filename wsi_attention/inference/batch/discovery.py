"""Find the slides of a call: folders are walked, a store or a series is one slide, all other files are counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from wsi_attention.errors import InputError
from wsi_attention.export.zarr import INSPECTED
from wsi_attention.inference.batch.globs import expanded
from wsi_attention.inference.batch.matching import DICOM
from wsi_attention.inference.batch.names import SUFFIXES, of_image, suffix_of
from wsi_attention.json_values import parse
from wsi_attention.slide.dicom_series import series_of
from wsi_attention.slide.metadata import given_mpp
from wsi_attention.slide.opening import known_elsewhere
from wsi_attention.slide.urls import is_url, last_part, masked

UNFINISHED = (".part", ".partial", ".crdownload", ".download", ".filepart", ".tmp", ".temp", ".swp", ".bak", "~")
"""Endings of files that are still being written, or were put aside."""

SIGNATURES = ((0, b"II*\0"), (0, b"MM\0*"), (0, b"II+\0"), (0, b"MM\0+"), (128, b"DICM"))
"""(offset, bytes) of TIFF, BigTIFF and DICOM: marks of slides without a known suffix."""


@dataclass(frozen=True, slots=True)
class SlideFile:
    """A slide to classify.

    Attributes:
        path: the file, OME-Zarr folder or URL, as it was given or found.
        relative: its path inside the input folder, with `/`; its place in the results folder follows from it.
        mpp: µm per level-0 pixel where the caller knows better than the file.
        mask: path of the user's own tissue mask.
        series: the number or name of the image that is the slide, where the caller says so.
        several: whether other images of the same file are asked for too, so that the image is part of the name.
        features: path of the file with features of its tiles; the same as `path` where the slide is not at hand.
        patient: whose slide it is, where the caller says so.
        beside: the other slides of the patient, for a model that looks at all of them together.
    """

    path: str
    relative: str
    mpp: float | None = None
    mask: str | None = None
    series: str | None = None
    several: bool = False
    features: str | None = None
    patient: str | None = None
    beside: tuple[SlideFile, ...] = ()

    @property
    def is_bag(self) -> bool:
        """Whether there is no slide, only the file of features of its tiles."""
        return self.features == self.path

    @property
    def key(self) -> str:
        """The path made absolute, or the URL without its secrets: what tells two slides apart."""
        return masked(self.path) if is_url(self.path) else str(Path(self.path).absolute())

    @property
    def image(self) -> str | None:
        """The image, where it is part of the name."""
        return self.series if self.several else None

    @property
    def place(self) -> str:
        """What its place in the results folder follows from: the relative path, with the image where that is needed."""
        return self.relative if self.image is None else of_image(self.relative, self.image)


@dataclass(frozen=True)
class Found:
    """What `find_slides` found.

    Attributes:
        slides: sorted by relative path.
        others: paths of files that are not slides.
        results: results folders of earlier runs, and attention maps from such folders; they were not searched.
    """

    slides: tuple[SlideFile, ...] = ()
    others: tuple[str, ...] = field(default=())
    results: tuple[str, ...] = field(default=())

    def __add__(self, other: Found) -> Found:
        return Found(self.slides + other.slides, self.others + other.others, self.results + other.results)


def find_slides(inputs: Sequence[str | Path], outside: str | Path | None = None) -> Found:
    """Return all slides among files, folders and URLs, each once.

    Folders are walked: hidden and half-written files are left out, an OME-Zarr store is one slide, so are all instances
    of one DICOM series in a folder, and a `.mrxs` with its companion folder. Files given by name are always taken.
    Results folders and the attention maps in them are never slides, wherever they lie.

    Args:
        inputs: files, folders, OME-Zarr stores, URLs, and patterns of them such as `slides/*.svs`.
        outside: a folder to stay out of, such as the results folder inside the input folder.

    Raises:
        InputError: an input does not exist, a URL is given with two signatures, or there is no slide at all; an
            attention map was given by its name.
    """
    found = Found()
    for given in map(str, expanded(inputs)):
        found += _found_in(given, Path(outside) if outside else None)
    slides: dict[str, SlideFile] = {}
    for slide in found.slides:
        first = slides.setdefault(slide.key, slide)
        if is_url(slide.path) and first.path != slide.path:
            raise InputError(f"{slide.key}: given twice, with different secrets (***); give each slide once")
    merged = _merge_series(sorted(slides.values(), key=lambda slide: (slide.relative, slide.key)))
    if not merged:
        raise InputError(_nothing(", ".join(map(str, inputs)) or "nothing", found))
    return Found(tuple(merged), *(tuple(sorted(set(paths))) for paths in (found.others, found.results)))


def _nothing(where: str, found: Found) -> str:
    text = f"no slides in {where}; "
    if found.results:
        shown = ", ".join(found.results[:3]) + ", ..." * (len(found.results) > 3)
        text += f"left out, because they are results of an earlier run: {shown}; "
    return f"{text}other files there: {len(found.others)}; known suffixes: {' '.join(SUFFIXES)}"


def _found_in(given: str, outside: Path | None) -> Found:
    if is_url(given):
        return Found((SlideFile(given, last_part(given)),))
    path = Path(given)
    if not path.exists():
        raise InputError(f"{given}: no such file or folder; -i takes slides, folders and URLs")
    if is_heatmap(path):
        raise InputError(f"{given}: an attention map out of a results folder, not a slide; give the slide itself")
    if not path.is_dir() or is_store(path):
        return Found((SlideFile(given, path.absolute().name),))
    seen = {_identity(outside)} if outside and outside.exists() else set()
    if _identity(path) in seen:
        raise InputError(f"{given}: results cannot go into the folder of the slides itself; give another with -o")
    slides, others, results = [], [], []
    for file in _walk(path, seen):
        if is_results(file) or is_heatmap(file):
            results.append(str(file))
        elif is_slide(file):
            slides.append(SlideFile(str(file), file.relative_to(path).as_posix()))
        else:
            others.append(str(file))
    return Found(tuple(slides), tuple(others), tuple(results))


def _identity(folder: Path) -> tuple[int, int]:
    state = folder.stat()
    return state.st_dev, state.st_ino


def _walk(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    """Yield all files, stores and results folders in a folder; each folder once."""
    if _identity(folder) in seen:
        return
    seen.add(_identity(folder))
    if is_results(folder):
        yield folder
        return
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed ({error.strerror}); check its permissions") from error
    companions = {name[: -len(".mrxs")].casefold() for name in names if name.casefold().endswith(".mrxs")}
    for name in names:
        path = folder / name
        if name.startswith((".", "~$")) or (name.casefold() in companions and path.is_dir()):
            continue
        if path.is_dir() and not is_store(path):
            yield from _walk(path, seen)
        elif path.exists() or path.is_symlink():  # a link to a disk that is not there is a slide that fails
            yield path


def is_store(folder: Path) -> bool:
    """Return whether a folder is one Zarr store, by its name or the files at its top; such a folder is never walked."""
    if not folder.is_dir():
        return False
    return folder.name.lower().endswith(".zarr") or any(
        (folder / name).is_file() for name in ("zarr.json", ".zgroup", ".zattrs", ".zarray")
    )


def holds_slides(path: str) -> bool:
    """Return whether a path is a folder to look for slides in: no store, and not the folder of one DICOM series."""
    folder = Path(path)
    if is_url(path) or not folder.is_dir() or is_store(folder):
        return False
    return not (_instances(folder) and _is_one_series(folder))


def is_results(folder: Path) -> bool:
    """Return whether a folder holds results of a run, also of one that was killed, or a part of such results."""
    if not folder.is_dir():
        return False
    marks = ("predictions.csv", ".lock", "run_*.json")
    return (folder / "states").is_dir() and any(path.is_file() for mark in marks for path in folder.glob(mark))


def is_heatmap(store: Path) -> bool:
    """Return whether an OME-Zarr store is an attention map that the exporter `heatmap-zarr` wrote."""
    try:
        described = parse((store / "zarr.json").read_text(encoding="utf-8"))
        channels = described["attributes"]["ome"]["omero"]["channels"]
        return len(channels) == 2 and channels[1]["label"] == INSPECTED
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return False


def is_slide(path: Path) -> bool:
    """Return whether a file may be a slide, by its suffix, its first bytes, or another package's reader."""
    if path.name.lower().endswith(UNFINISHED):
        return False
    if suffix_of(path.name) or is_store(path):
        return True
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            head = file.read(132)
    except OSError:
        return False
    return any(head[offset : offset + len(mark)] == mark for offset, mark in SIGNATURES) or known_elsewhere(str(path))


def files_of(path: str) -> tuple[str, ...]:
    """Return the names of the files of a slide that is a folder of DICOM files, none for other slides."""
    folder = Path(path)
    return tuple(file.name for file in _instances(folder)) if folder.is_dir() and not is_store(folder) else ()


def _merge_series(slides: list[SlideFile]) -> list[SlideFile]:
    """Return each slide once: a DICOM series by its folder, or by its first file where the folder holds others too."""
    series: set[tuple[str, str]] = set()
    kept: dict[str, SlideFile] = {}
    for slide in map(whole_series, slides):
        uid = series_of(slide.path) if _is_instance(slide) and len(_instances(Path(slide.key).parent)) > 1 else None
        where = (str(Path(slide.key).parent), uid or slide.key)
        if where not in series:
            kept.setdefault(slide.key, slide)
        series.add(where)
    return list(kept.values())


def whole_series(slide: SlideFile) -> SlideFile:
    """Return the folder in place of a DICOM file in it, where that holds one series and no other slide.

    So a series has one name, whichever of its files or its folder was given. A single file keeps its own name unless it
    lies in a folder of its own below the given one.
    """
    folder, above = Path(slide.key).parent, slide.relative.rpartition("/")[0]
    if not _is_instance(slide) or len(_instances(folder)) < (1 if above else 2) or not _is_one_series(folder):
        return slide
    given = Path(slide.path).parent
    return replace(slide, path=str(given if given.name else folder), relative=above or folder.name)


def _is_instance(slide: SlideFile) -> bool:
    return not is_url(slide.path) and slide.path.lower().endswith(DICOM) and not Path(slide.path).is_dir()


def _instances(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.name.lower().endswith(DICOM))
    except OSError:
        return []


def _is_one_series(folder: Path) -> bool:
    """Return whether all slides in a folder are instances of one DICOM series, so that it opens as one slide."""
    names = (path.name for path in folder.iterdir() if not path.name.startswith(".") and not path.is_dir())
    return _hold_one_series(folder, tuple(sorted(names)), folder.stat().st_mtime_ns)


@lru_cache(256)
def _hold_one_series(folder: Path, names: tuple[str, ...], time: int) -> bool:
    files = [folder / name for name in names if is_slide(folder / name)]
    if not files or any(path.suffix != ".dcm" for path in files):
        return False
    series = {series_of(str(path)) for path in files}
    return len(series) == 1 and None not in series


def with_mpp(slides: Sequence[SlideFile], mpp: float | None) -> tuple[SlideFile, ...]:
    """Return the slides, with this mpp where the slides CSV gives none.

    Raises:
        InputError: the mpp is none that a slide can have.
    """
    mpp = given_mpp(mpp)
    if mpp is None:
        return tuple(slides)
    return tuple(slide if slide.mpp is not None else replace(slide, mpp=mpp) for slide in slides)


def with_series(slides: Sequence[SlideFile], series: str | None) -> tuple[SlideFile, ...]:
    """Return the slides, with this series where the slides CSV gives none.

    Raises:
        InputError: a file is there twice, and nothing says with which images.
    """
    asked = [slide if slide.series is not None else replace(slide, series=series) for slide in slides]
    count, images = Counter(slide.key for slide in asked), Counter((slide.key, slide.series) for slide in asked)
    for slide in asked:
        if count[slide.key] > 1 and (slide.series is None or images[slide.key, slide.series] > 1):
            raise InputError(f"{slide.key}: listed {count[slide.key]} times; give each row a series of its own")
    return tuple(replace(slide, several=count[slide.key] > 1) for slide in asked)
