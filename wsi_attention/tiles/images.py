"""Plain images that are no slides: the entries of a zarr array, or the files of a folder, by name.

They are seen as they are: no levels, no tissue to find, no colour that they must have, one µm a pixel unless somebody
says otherwise. A picture of a slide is a slide; this is for what the readers of slides refuse.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_attention.errors import InputError, SlideOpenError

SUFFIXES = (".npy", ".png", ".jpg", ".jpeg")
"""Files of a folder that are images; others are passed over."""
MOST_PIXELS = 100_000_000
"""An image is in memory whole; what is larger is for the readers of slides."""
WANTED = "a zarr array (n, h, w) or (n, h, w, c) of bytes, or a folder of .npy, PNG or JPEG images"


class Images:
    """Images by name. Pickles as what it was opened from.

    Attributes:
        path: the array or folder.
        names: of the images: numbers from 0 in an array, file names without suffix in a folder.
    """

    def __init__(self, path: str | Path) -> None:
        """Look at what there is; no pixels are read.

        Raises:
            InputError: nothing there is an image, an array has another shape or other numbers, names stand twice.
        """
        self.path = Path(path)
        if not self.path.is_dir():
            raise InputError(f"{path}: {'a file' if self.path.exists() else 'no such folder'}; images are {WANTED}")
        store = any((self.path / name).is_file() for name in ("zarr.json", ".zarray"))
        self._reading: Mapping[str, Callable[[], NDArray[np.uint8]]] = _of_array(self.path) if store else _of(self.path)
        self.names = tuple(self._reading)

    def __reduce__(self) -> tuple[type[Images], tuple[str]]:
        return Images, (str(self.path),)

    def find(self, name: str) -> str | None:
        """Return the name of the image that a table means, which may write its suffix; None where there is none."""
        bare = name[: -len(Path(name).suffix)] if Path(name).suffix.lower() in SUFFIXES else name
        return next((one for one in (name, bare) if one in self._reading), None)

    def read(self, name: str) -> NDArray[np.uint8]:
        """Return the pixels of an image, (h, w, c).

        Raises:
            SlideOpenError: it cannot be read, or it is no image of bytes.
        """
        try:
            pixels = self._reading[name]()
        except (OSError, ValueError, SyntaxError) as error:
            raise SlideOpenError(f"{self.path}, image {name}: cannot be read ({error}); write it again") from error
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or 0 in pixels.shape:
            raise SlideOpenError(
                f"{self.path}, image {name}: {pixels.dtype} {pixels.shape}; an image is (h, w) or (h, w, c) of bytes"
            )
        return pixels


def fingerprint_of(pixels: NDArray[np.uint8]) -> str:
    """Return the sha256 of an image's shape and pixels (h, w, c)."""
    return hashlib.sha256(str(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()


def _of_array(path: Path) -> Mapping[str, Callable[[], NDArray[np.uint8]]]:
    import zarr

    try:
        array = zarr.open_array(path, mode="r")
    except (OSError, ValueError, KeyError, zarr.errors.BaseZarrError) as error:
        raise InputError(f"{path}: no zarr array ({error}); images are {WANTED}") from error
    if array.ndim not in (3, 4) or array.dtype != np.uint8 or 0 in array.shape:
        raise InputError(f"{path}: a zarr array of {array.dtype} {array.shape}; images are {WANTED}")
    if np.prod(array.shape[1:3], dtype=np.int64) > MOST_PIXELS:
        raise InputError(f"{path}: images of {array.shape[1:3]} are for slides (-i); images here have up to 100 Mpx")

    def reading(number: int) -> Callable[[], NDArray[np.uint8]]:
        return lambda: np.asarray(array[number])

    return {str(number): reading(number) for number in range(array.shape[0])}


def _of(folder: Path) -> Mapping[str, Callable[[], NDArray[np.uint8]]]:
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    found: dict[str, Callable[[], NDArray[np.uint8]]] = {}
    for path in files:
        if path.stem in found:
            raise InputError(f"{folder}: two images are called {path.stem}; rename one, names count without suffix")
        found[path.stem] = _array_in(path) if path.suffix.lower() == ".npy" else _picture_in(path)
    if not found:
        raise InputError(f"{folder}: no image in it; images are {WANTED}")
    return found


def _array_in(path: Path) -> Callable[[], NDArray[np.uint8]]:
    return lambda: np.asarray(np.load(path, allow_pickle=False))


def _picture_in(path: Path) -> Callable[[], NDArray[np.uint8]]:
    def read() -> NDArray[np.uint8]:
        from PIL import Image

        with Image.open(path, formats=["PNG", "JPEG"]) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels, more than 100 million")
            if image.mode not in ("L", "RGB"):
                raise ValueError(f"mode {image.mode}, neither grey nor RGB of 8 bits")
            return np.asarray(image)

    return read
