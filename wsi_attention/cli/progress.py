"""How a batch goes on, as people see it: a bar on a terminal, a line for each step with `-v`, nothing with `-q`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from wsi_attention.cli.pace import Pace
from wsi_attention.cli.say import warn
from wsi_attention.cli.voice import Voice
from wsi_attention.plain_text import lasting, visible

if TYPE_CHECKING:
    from wsi_attention.inference.batch.listener import Listener, News

Show = Callable[[str, int, int | None], None]
"""Shows a text beside how many are done, and of how many; of an unknown number where None."""


class Told:
    """What is told while a batch runs, in words.

    Args:
        show: moves a bar; None where there is none.
        line: prints a line for each step; None where nobody wants lines.
    """

    def __init__(self, show: Show | None, line: Callable[[str], None] | None) -> None:
        self._show, self._line = show, line
        self._pace = Pace()

    def stage(self, text: str) -> None:
        """Tell what begins now."""
        if self._show:
            self._show(text, 0, None)
        if self._line:
            self._line(text)

    def slide(self, news: News) -> None:
        """Tell of a slide that is done: its label, how many failed, the pace and the time left."""
        if not news.kept:
            self._pace.add()
        figures = [f"{news.failed} failed" if news.failed else "", self._pace.words(news.total - news.done)]
        tail = ", ".join(filter(None, figures))
        name = f"{news.state.name}: {news.label}"
        if self._show:
            self._show(f"{tail}  {name}" if tail else name, news.done, news.total)
        if self._line:
            self._line(f"{news.done} of {news.total}: {name}{_detail(news)}{f'; {tail}' if tail else ''}")


def _detail(news: News) -> str:
    if news.kept:
        return " (finished by an earlier run)"
    reason = f": {news.state.reason}" if news.state.reason else ""
    return f" ({lasting(news.state.seconds)}){reason}"


@contextmanager
def watching(voice: Voice = Voice.USUAL) -> Iterator[Listener | None]:
    """Yield what shows how a batch goes on; None where nothing is to be shown, as in a file without `-v`."""
    terminal = sys.stderr is not None and sys.stderr.isatty()
    if voice is Voice.QUIET or not (terminal or voice is Voice.VERBOSE):
        yield None
    elif not terminal:
        yield Told(None, warn)
    else:
        with _bar() as (show, line):
            yield Told(show, line if voice is Voice.VERBOSE else None)


@contextmanager
def _bar() -> Iterator[tuple[Show, Callable[[str], None]]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    text = (TextColumn(f"{{task.{field}}}", markup=False) for field in ("fields[count]", "description"))
    console = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
    with Progress(BarColumn(20), TimeElapsedColumn(), *text, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=None, count="")

        def show(text: str, done: int, total: int | None) -> None:
            count = "" if total is None else f"{done} of {total}"
            bar.update(task, completed=done, total=total, description=visible(text), count=count)
            bar.refresh()

        def line(text: str) -> None:
            console.print(f"wsi-attention: {visible(text)}", markup=False)

        yield show, line
