"""`wsi-attention view`: a results folder in the browser, over the slides themselves."""

from __future__ import annotations

import webbrowser
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Annotated

import typer

from wsi_attention.defaults import VIEWER_PORT


def view(
    results: Annotated[Path, typer.Argument(help="The results folder that classify wrote.")],
    slides: Annotated[
        list[Path] | None, typer.Option(help="A folder that the slides lie in now, if they have moved.")
    ] = None,
    beside: Annotated[
        Path | None, typer.Option(help="Results of another model for the same slides, to look at side by side.")
    ] = None,
    reviewer: Annotated[
        str, typer.Option(help="Your name, for results/reviews/NAME.csv; the page asks for it otherwise.")
    ] = "",
    port: Annotated[
        int | None, typer.Option(help=f"Port on 127.0.0.1; 0 takes a free one.  [default: {VIEWER_PORT}, if free]")
    ] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only print the address.")] = False,
) -> None:
    """Show slides with attention and the tiles that were read on top, on this computer alone. Ctrl-C ends it.

    What you say to a label on the page goes to results/reviews/NAME.csv; nothing else is written.

    Example: wsi-attention view results/ --slides /archive/2026
    """
    from wsi_attention.cli.interrupts import starting

    with starting():
        from wsi_attention.inference.results.mirror import check_folder
        from wsi_attention.viewer.content import Content
        from wsi_attention.viewer.library import Library
        from wsi_attention.viewer.server import serving

    for folder in filter(None, (results, beside)):
        check_folder(folder)
    library = Library(results, slides or ())
    content = Content(library, Library(beside, slides or ()) if beside else None, reviewer)
    with serving(content, port) as server:
        typer.echo(f"{len(library.states)} slide{'s' * (len(library.states) != 1)} at {server.page} (Ctrl-C ends it)")
        Thread(target=server.content.warm, daemon=True).start()
        if not no_browser:
            webbrowser.open(server.page)
        with suppress(KeyboardInterrupt):
            server.serve_forever()
    content.shelf.close()
