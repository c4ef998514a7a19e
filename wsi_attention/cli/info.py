"""`wsi-attention info`: what a slide says of itself, and what is odd about it; or a folder of slides or a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsi_attention.plain_text import visible

if TYPE_CHECKING:
    from wsi_attention.slide.description import ImageDescription, SlideDescription


def info(
    slides: Annotated[
        list[str], typer.Argument(help="Slides, URLs, folders of slides; or models, folders of results.")
    ],
    reader: Annotated[str, typer.Option(help="Reader to use.")] = "auto",
    mpp: Annotated[float | None, typer.Option(help="µm per level-0 pixel, if the file is wrong or silent.")] = None,
    series: Annotated[str | None, typer.Option(help="Which image is the slide: its number or name.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object a slide.")] = False,
    tissue: Annotated[
        Path | None, typer.Option(help="Write a picture (PNG) of the tissue found, of one slide.", metavar="PNG")
    ] = None,
) -> None:
    """Show levels, µm/px and its source, bounds, all images of the file, the reader, and what is odd about a slide.

    Of a folder of slides: a row for each; of a results folder: what was done; of a model, by its folder or
    the name of a shipped one: method, classes, encoder with its licence.

    Example: wsi-attention info slide.svs --tissue tissue.png
    """
    from wsi_attention.cli.info_folder import show_results, show_slides
    from wsi_attention.cli.info_model import model_at, page
    from wsi_attention.errors import InputError, SlideError
    from wsi_attention.inference.batch.discovery import holds_slides, is_results
    from wsi_attention.inference.batch.globs import expanded

    paths = list(map(str, expanded(slides)))
    if tissue and (len(paths) > 1 or holds_slides(paths[0])):
        raise InputError(f"--tissue {tissue}: one picture shows one slide, give the file of one")

    def described(path: str) -> SlideDescription | None:
        try:
            return _described(path, reader, mpp, series, tissue)
        except SlideError as error:
            typer.echo(f"wsi-attention: error: {visible(' '.join(str(error).split()))}", err=True)
            return None

    failed = False
    for path in paths:
        if model := model_at(path):
            typer.echo(page(model, as_json))
        elif is_results(Path(path)):
            show_results(Path(path), as_json)
        elif holds_slides(path):
            failed |= not show_slides(Path(path), described, as_json)
        elif (facts := described(path)) is None:
            failed = True
        else:
            typer.echo(json.dumps(facts, ensure_ascii=False) if as_json else _page(facts))
    if failed:
        raise typer.Exit(1)


def _described(path: str, reader: str, mpp: float | None, series: str | None, tissue: Path | None) -> SlideDescription:
    from wsi_attention.slide.description import describe
    from wsi_attention.slide.slide import open_slide

    with open_slide(path, reader, mpp, {"series": series}) as slide:
        facts = describe(slide)
        if tissue:
            from wsi_attention.inference.pictures import write_tissue

            facts["tissue"] = write_tissue(slide, tissue)
    return facts


def _page(facts: SlideDescription) -> str:
    mpp = " x ".join(f"{value:.4g}" for value in facts["mpp"]) + " µm/px" if facts["mpp"] else "unknown"
    rows = [
        ("slide", facts["slide"]),
        ("reader", f"{facts['reader']} ({facts['reader_reason']})"),
        ("vendor", facts["vendor"] or "unknown"),
        ("size", "{} x {} px".format(*facts["size"])),
        ("mpp", f"{mpp} (from: {facts['mpp_source']})"),
        ("objective", facts["objective_power"] or "unknown"),
        ("bounds", facts["bounds"] or "whole slide"),
        ("associated", ", ".join(facts["associated"]) or "none"),
    ]
    rows += [(f"image {image['index']}", _image(image)) for image in facts["images"]]
    for number, level in enumerate(facts["levels"]):
        tile = "x".join(map(str, level["tile"])) if level["tile"] else "unknown"
        size = f"{level['width']} x {level['height']} px{' (left out)' if level['left_out'] else ''}"
        rows.append((f"level {number}", f"{size}, downsample {level['downsample']:g}, stored tiles {tile}"))
    rows.append(("fingerprint", facts["fingerprint"]))
    found = facts.get("tissue")
    rows += [("tissue", found["words"].removeprefix("tissue ")), ("picture", found["picture"])] if found else []
    odd = [*facts["odd"], *(found["notes"] if found else ())]
    rows += [("odd", text) for text in odd] or [("odd", "nothing")]
    return "\n".join(f"{name:<12} {visible(str(value))}" for name, value in rows) + "\n"


def _image(image: ImageDescription) -> str:
    levels = f"{image['levels']} level{'s' if image['levels'] > 1 else ''}"
    size = f"{image['width']} x {image['height']} px, {levels}{'' if image['rgb'] else ', not 8-bit RGB'}"
    name = f", {image['name']!r}" if image["name"] else ""
    return f"{size}{name}{' <- the slide' if image['slide'] else ''}"
