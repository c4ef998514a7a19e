"""What one slide costs as slides grow and the budget stays: seconds and peak memory from 10,000² to 200,000² pixels.

    python tests/benchmarks/slide_growth.py [--sizes 10000 40000 100000 200000] [--models demo resnet18] [--repeats 3]

Generated slides (256-px JPEG tiles, 0.25 µm/px, 40 % tissue), the shipped demo model and ATS with a ResNet-18 and 256
tiles at 0.25 µm/px (random weights, so the tiles lie all over the tissue). Every slide is classified in a process of
its own, which has classified a 10,000² slide before, so that imports and the libraries' first-time work are not counted
(they are the same for every size and would flatter the ratio). Sizes take turns. "cpu" is the processor time of the
process, which other jobs on the machine disturb less than the clock; memory is that of the whole process, torch
included. Ratios are against 40,000², within each round; the budget of tiles is the model's for all of them.

"limit" is the processor time that no order of work can avoid: the overview read once at the scale that the model is
shown, its tiles decoded, and the forward passes of its two networks, the attention network's on the places with tissue
(`exact_cost.alone`). It grows with the overview's pixels, which the model asks for by its µm per pixel; so does the
ratio that can be had at best, and it is printed too.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from common import in_own_process, large_slide, machine, options_parser, save, table
from exact_cost import alone
from one_slide import classified, model_folder

FIGURES = ("seconds", "cpu_seconds", "limit", "rss_mb")
TARGETS = {"seconds": 1.3, "rss_mb": 1.2}
FIRST, BASE = 10_000, 40_000

Rounds = dict[int, list[dict[str, Any]]]


def in_rounds(slides: dict[int, Path], first: Path, model: str, repeats: int) -> Rounds:
    """The figures of every slide in every round; the first slide of a round changes from round to round."""
    sizes, found = list(slides), {size: [] for size in slides}
    for turn in range(repeats):
        start = turn % len(sizes)
        for size in sizes[start:] + sizes[:start]:
            whole = in_own_process(classified, str(slides[size]), model, str(first))
            least = in_own_process(alone, str(slides[size]), model, str(first), 0)
            found[size].append(whole | {"limit": least["cpu_seconds"]})
    return found


def middle(rounds: Rounds, size: int, figure: str) -> float:
    """The median over the rounds."""
    return statistics.median(one[figure] for one in rounds[size])


def growth(rounds: Rounds, small: int, large: int, figure: str) -> float:
    """How many times more the large slide takes, the median over the rounds."""
    pairs = zip(rounds[small], rounds[large], strict=True)
    return statistics.median(more[figure] / less[figure] for less, more in pairs)


def report(model: str, rounds: Rounds) -> None:
    """Print the medians by size, and the growth from the second size to the last."""
    parts = ("seconds", "cpu_seconds", "limit", "open", "overview_and_tissue", "look", "rss_mb", "loaded_mb")
    rows = [
        [f"{size:,}²", f"{middle(rounds, size, 'overview_pixels') / 1e6:.2f}", int(middle(rounds, size, "tiles"))]
        + [f"{middle(rounds, size, part):.{0 if part.endswith('mb') else 2}f}" for part in parts]
        for size in rounds
    ]
    head = (
        "slide",
        "overview Mpx",
        "tiles",
        "seconds",
        "cpu",
        "limit",
        "open",
        "overview",
        "look",
        "peak MB",
        "MB before",
    )
    print(f"\n{model}: medians of {len(next(iter(rounds.values())))} rounds\n{table(head, rows)}")
    small, large = BASE if BASE in rounds else min(rounds), max(rounds)
    for figure in FIGURES:
        wanted = f", target {TARGETS[figure]} at most" if figure in TARGETS else ""
        print(f"ratio {figure} {large:,}² / {small:,}²: {growth(rounds, small, large, figure):.2f}x{wanted}")
    best = middle(rounds, large, "limit") / middle(rounds, small, "cpu_seconds")
    print(f"limit of {large:,}² / cpu of {small:,}²: {best:.2f}x, what nothing but the limit would leave of the growth")


def main() -> None:
    """Make the slides, take turns, print tables and ratios, save the raw figures."""
    parser = options_parser(__doc__, "slide_growth", repeats=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 40_000, 100_000, 200_000])
    parser.add_argument("--models", nargs="+", default=["demo", "resnet18"])
    parser.add_argument("--folder", type=Path, help="where slides are kept between runs; a temporary one by default")
    options, began = parser.parse_args(), machine()
    with TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        slides = {size: large_slide(folder, size) for size in sorted(options.sizes)}
        first, found = large_slide(folder, FIRST), {}
        for name in options.models:
            model = str(model_folder(Path(temporary))) if name == "resnet18" else name
            found[name] = in_rounds(slides, first, model, options.repeats)
            report(name, found[name])
        bytes_of = {size: path.stat().st_size for size, path in slides.items()}
    save(options.json, options, {"file_bytes": bytes_of, "rounds": found}, began)


if __name__ == "__main__":
    main()
