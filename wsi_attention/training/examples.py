"""What the training loop knows of an image: a name, a class, and how to open it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field

from wsi_attention.errors import SlideError
from wsi_attention.protocols import TileSource


@dataclass(frozen=True)
class Example:
    """An image with its class: all that the training loop knows of a slide.

    Attributes:
        name: what reports call it.
        label: class index.
        key: what its chance is seeded with; the slide's fingerprint.
        patient: whose it is, for intervals; its own where empty.
        seen: what its reader sees of it besides pixels (`slide.fingerprint.seen_in`); maps of it stand for no other.
        open: gives its pixels for the time of a `with` block; a `SlideError` drops it from training.
    """

    name: str
    label: int
    key: str
    open: Callable[[], AbstractContextManager[TileSource]]
    patient: str = ""
    seen: Mapping[str, str] = field(default_factory=dict)


def ahead(examples: Sequence[Example]) -> Generator[tuple[Example, TileSource | SlideError]]:
    """Each example with its open source, or with the error that opening it gave; the next one opens meanwhile."""
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as pool, ExitStack() as unfinished:
        coming = [pool.submit(_entered, example) for example in examples[:1]]
        unfinished.callback(_close, coming)
        for position, example in enumerate(examples):
            stack, source = coming.pop().result()
            coming += [pool.submit(_entered, following) for following in examples[position + 1 : position + 2]]
            with stack:
                yield example, source


def _close(coming: list[Future[tuple[ExitStack, TileSource | SlideError]]]) -> None:
    for future in coming:
        future.result()[0].close()


def _entered(example: Example) -> tuple[ExitStack, TileSource | SlideError]:
    stack = ExitStack()
    try:
        return stack, stack.enter_context(example.open())
    except SlideError as error:
        return stack, error
    except OSError as error:
        return stack, SlideError(f"{example.name}: {error}")
