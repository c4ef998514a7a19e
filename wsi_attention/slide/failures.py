"""Errors of libraries as one line that names the file."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from wsi_attention.errors import SlideOpenError, TileReadError, WsiAttentionError
from wsi_attention.slide.urls import masked

INSIDE = (LookupError, TypeError, AttributeError, AssertionError, ArithmeticError, UnicodeError, RecursionError)
"""What a library raises that took a sound file for granted: the text speaks of its program, not of the file."""


def what_is_wrong(error: BaseException) -> str:
    """Describe an error of reading a file on one line, for somebody who knows files and not the library."""
    absurd = isinstance(error, OSError) and error.errno == errno.EINVAL  # such as a jump to before the file's start
    if absurd or (isinstance(error, INSIDE) and not isinstance(error, WsiAttentionError)):
        return "its content is not what the format allows"
    return one_line(error)


def one_line(error: BaseException, limit: int = 160) -> str:
    """Return an error's text in one line, with its class where the text alone says little."""
    text = masked(" ".join(str(error).split()))
    if isinstance(error, KeyError) or len(text) < 12:
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"


@contextmanager
def opening(path: str, reader: str, undo: Callable[[], None] | None = None) -> Iterator[None]:
    """Turn whatever a library raises on a broken file into `SlideOpenError`, one line that names the file.

    Args:
        path: the file's name, for the message.
        reader: who is opening it.
        undo: called on any error, to close what is already open.
    """
    try:
        yield
    except BaseException as error:
        if undo is not None:
            with suppress(Exception):  # half-open things may fail to close; the first error is the one to tell
                undo()
        if isinstance(error, TileReadError):  # what a URL's server does while the index is read
            raise SlideOpenError(masked(str(error))) from None
        if isinstance(error, WsiAttentionError) and masked(str(error)) != str(error):
            raise type(error)(masked(str(error))) from None
        if isinstance(error, WsiAttentionError) or not isinstance(error, Exception):
            raise
        if _while_importing(error):
            raise SlideOpenError(
                f"{masked(path)}: the reader {reader} cannot be used here ({one_line(error)}); install its packages"
                " again (wsi-attention doctor names what is missing), then open the slide again"
            ) from error
        # hostile files make the libraries raise anything: struct.error, KeyError, MemoryError
        reason = what_is_wrong(error).replace(f"Reading {path}: ", "").rstrip(".")
        raise SlideOpenError(
            f"{masked(path)}: {reader} cannot open it ({reason}), which is damage or a variant that it does not know:"
            " compare the file with its original, try another reader (--reader of info), or leave it out"
        ) from error


def _while_importing(error: BaseException) -> bool:
    """Tell whether an error says something about installed packages, not about the file: an import went wrong."""
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_name == "<module>" or code.co_filename.startswith("<frozen importlib"):
            return True
        trace = trace.tb_next
    return isinstance(error, ImportError) or "partially initialized module" in str(error)
