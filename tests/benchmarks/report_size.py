"""The report of many slides in a real browser: seconds to the first view, memory, milliseconds to sort and to filter.

    python tests/benchmarks/report_size.py [--slides 2000] [--work FOLDER]

A few generated slides are classified with the demo model; their results are copied under other names, with other
probabilities, until there are enough, some of them failed. First view: from asking for the file to the first rows on
the screen, each time in a browser of its own. Sorting and filtering: from the click to the second frame after it, when
what it changed is on the screen. Opening: from the click to the slide's page being as high as its content. Memory:
what all processes of the browser hold for themselves, without its program and what they share, as its task manager
counts it, once the list's garbage has been collected: with four slides open, after twelve were opened one below the
other, of which four stay open, and once the garbage of the slides' own pages has been collected too.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import options_parser, run_and_save

from wsi_attention.checkpoint import load_model
from wsi_attention.inference.batch.classify import classify
from wsi_attention.inference.results.page import part_of, write_page
from wsi_attention.testing.slides import SlideSpec, write_slide

REAL = 4
FRAMES = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now()))))"
STEPS = {
    "sort by probability": "document.querySelector('#slides th[data-key=probability] button').click()",
    "sort by name": "document.querySelector('#slides th[data-key=name] button').click()",
    "sort by remarks": "document.querySelector('#slides th[data-key=reason] button').click()",
    "choose a class": "put('class', '0', 'change')",
    "choose the other class": "put('class', '1', 'change')",
    "find": "put('find', 'ward 7', 'input')",
    "find nothing": "put('find', 'no such slide', 'input')",
    "find all again": "put('find', '', 'input')",
    "at least 0.9": "put('least', '0.9', 'input')",
    "at least nothing": "put('least', '', 'input')",
    "status failed": "put('status', 'failed', 'input')",
    "every status": "put('status', '', 'input')",
}
AS_HIGH = """(number) => {
  const row = document.querySelectorAll("a.card-of")[number].closest("tr");
  return row.nextElementSibling.querySelector("iframe").style.height;
}"""
PUT = """(id, value, kind) => {
  const element = document.getElementById(id);
  element.value = value;
  element.dispatchEvent(new Event(kind, { bubbles: true }));
}"""


def many_results(folder: Path, slides: int) -> Path:
    """A results folder of as many slides, copies of `REAL` that were classified; made once a folder."""
    results = folder / f"results-{slides}"
    if results.is_dir():
        return results
    made = folder / "made"
    for seed in range(REAL):
        spec = SlideSpec((6_000, 5_000), mpp=0.5, seed=seed, label="lesion" if seed % 2 else "benign")
        (made / "slides").mkdir(parents=True, exist_ok=True)
        write_slide(made / f"slides/real{seed}.tiff", spec)
    classify([made / "slides"], made / "results", load_model("demo"))
    shutil.rmtree(made / "slides")
    shutil.copytree(made / "results", results)
    for path in [*(results / "states").iterdir(), *(results / "report").iterdir()]:
        path.unlink()
    rng = np.random.default_rng(0)
    for number in range(slides):
        copy_result(made / "results", results, number, float(rng.beta(0.4, 0.6)))
    return results


def copy_result(source: Path, results: Path, number: int, probability: float) -> None:
    """Write one slide's state, and its page, as a copy of another's."""
    old, new = f"real{number % REAL}", f"ward {number % 23} slide {number:05d}"
    state = json.loads((source / f"states/{old}.json").read_text(encoding="utf-8").replace(old, new))
    if number % 40 == 17:
        state |= {"status": "failed", "reason": "cannot be opened: the file ends early", "row": {}, "record": None}
    else:
        share = {"prob_benign": f"{1 - probability:.6f}", "prob_lesion": f"{probability:.6f}"}
        state["row"] |= {**share, "label": "lesion" if probability > 0.5 else "benign"}
        page = part_of(source, old).read_text(encoding="utf-8").replace(old, new)
        part_of(results, new).write_text(page, encoding="utf-8")
    (results / f"states/{new}.json").write_text(json.dumps(state), encoding="utf-8")


def processes(root: int) -> Iterator[int]:
    """A process and all those below it."""
    yield root
    for task in Path(f"/proc/{root}/task").glob("*/children"):
        for child in task.read_text().split():
            yield from processes(int(child))


def megabytes(root: int) -> float:
    """Memory of a process and those below it that is theirs alone: no files and nothing shared."""
    total = 0
    for number in processes(root):
        lines = Path(f"/proc/{number}/status").read_text().splitlines()
        total += sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon:", "VmSwap:")))
    return total / 1024


def processor_ms(session: Any) -> float:
    """Processor time that the page's own thread has used since its start."""
    metrics = session.send("Performance.getMetrics")["metrics"]
    return 1000 * next(float(one["value"]) for one in metrics if one["name"] == "TaskDuration")


class Browser:
    """Headless Chromium of its own."""

    def __init__(self, playwright: Any, size: tuple[int, int] = (1280, 900)) -> None:
        program = shutil.which("chromium") or shutil.which("google-chrome")
        before = set(processes_named("chrom"))
        self._browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        new = set(processes_named("chrom")) - before
        self._root = min(new)
        self.page = self._browser.new_page(viewport={"width": size[0], "height": size[1]})
        self.page.set_default_timeout(300_000)
        self._session = self.page.context.new_cdp_session(self.page)
        self._session.send("Performance.enable", {"timeDomain": "threadTicks"})

    @property
    def processor_ms(self) -> float:
        """Processor time of the page's thread so far."""
        return processor_ms(self._session)

    @property
    def megabytes(self) -> float:
        """What it holds in memory, once the page's garbage has been collected."""
        self._session.send("HeapProfiler.collectGarbage")
        return megabytes(self._root)

    def collect_in_slides(self) -> None:
        """Collect the garbage of the slides' pages too, which a process of their own holds."""
        frames = self.page.frames[1:]
        if frames:
            self.page.context.new_cdp_session(frames[0]).send("HeapProfiler.collectGarbage")

    def close(self) -> None:
        """End it."""
        self._browser.close()


def processes_named(name: str) -> Iterator[int]:
    """Processes of this machine whose program has this in its name."""
    for path in Path("/proc").glob("[0-9]*/comm"):
        try:
            if name in path.read_text():
                yield int(path.parent.name)
        except OSError:
            continue


def first_view(browser: Browser, address: str) -> float:
    """Seconds from asking for the page to its first rows on the screen."""
    start = time.perf_counter()
    browser.page.goto(address, wait_until="commit")
    browser.page.wait_for_selector("#slides tbody tr")
    browser.page.evaluate(FRAMES)
    return time.perf_counter() - start


def step_ms(page: Any, step: str) -> float:
    """Milliseconds from a click to the second frame after it."""
    timed = f"const put = {PUT}; const start = performance.now(); {step}; return (await ({FRAMES})()) - start;"
    script = f"async () => {{ {timed} }}"
    return float(page.evaluate(script))


def open_slides(browser: Browser, numbers: range) -> list[float]:
    """Seconds to open each of these slides below its row."""
    found = []
    for number in numbers:
        link = browser.page.locator("a.card-of").nth(number)
        start = time.perf_counter()
        link.click()
        browser.page.wait_for_function(AS_HIGH, arg=number)
        found.append(time.perf_counter() - start)
    browser.page.wait_for_function(
        "() => [...document.querySelectorAll('tr.card iframe')].every(each => each.style.height)"
    )
    return found


def measured(address: str, repeats: int) -> dict[str, Any]:
    """All that the browser is asked."""
    from playwright.sync_api import sync_playwright

    views: list[float] = []
    busy: list[float] = []
    found: dict[str, Any] = {}
    with sync_playwright() as playwright:
        for turn in range(repeats + 1):
            browser = Browser(playwright)
            empty = browser.megabytes
            views.append(first_view(browser, address))
            busy.append(browser.processor_ms / 1000)
            if turn == repeats:
                found = {"empty_mb": empty, "first_view_mb": browser.megabytes}
                found |= {kind: {name: [] for name in STEPS} for kind in ("ms", "processor_ms")}
                for _ in range(repeats):
                    for name, step in STEPS.items():
                        before = browser.processor_ms
                        found["ms"][name].append(step_ms(browser.page, step))
                        found["processor_ms"][name].append(browser.processor_ms - before)
                found["sorted_mb"] = browser.megabytes
                found["open"] = open_slides(browser, range(4))
                found["four_mb"] = browser.megabytes
                found["open"] += open_slides(browser, range(4, 12))
                found["twelve_mb"] = browser.megabytes
                browser.collect_in_slides()
                found["collected_mb"] = browser.megabytes
            browser.close()
    return {"first_view": views[1:], "first_view_processor": busy[1:], **found}


def told(values: list[float], unit: str) -> str:
    """The median, and from what to what."""
    places = 2 if unit == "s" else 0
    return f"{statistics.median(values):.{places}f} {unit} ({min(values):.{places}f} to {max(values):.{places}f})"


def run(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Measure, print, and return the raw figures."""
    results = many_results(work, options.slides)
    start = time.perf_counter()
    page = write_page(results)
    seconds = time.perf_counter() - start
    size = page.stat().st_size
    pages = sum(path.stat().st_size for path in (results / "report").rglob("*.html"))
    print(
        f"{options.slides} slides: page {size / 1e6:.2f} MB in {seconds:.1f} s; slides' own pages {pages / 1e6:.0f} MB"
    )
    found = measured(page.as_uri(), options.repeats)
    print(
        f"first view: {told(found['first_view'], 's')}, target 1; {told(found['first_view_processor'], 's')} processor"
    )
    for name, each in found["ms"].items():
        print(f"{name}: {told(each, 'ms')}, target 100; {told(found['processor_ms'][name], 'ms')} processor")
    print(f"a slide opens in {statistics.median(found['open']):.2f} s")
    stages = {"empty": "empty_mb", "first view": "first_view_mb", "sorted": "sorted_mb", "four open": "four_mb"}
    stages |= {"twelve opened": "twelve_mb", "garbage of slides collected": "collected_mb"}
    print("browser: " + ", ".join(f"{name} {found[key]:.0f} MB" for name, key in stages.items()) + ", target 300")
    return {"page_bytes": size, "pages_bytes": pages, "write_seconds": seconds, **found}


def main() -> None:
    """The command line."""
    parser = options_parser(__doc__, "report_size")
    parser.add_argument("--slides", type=int, default=2_000, help="slides of the report [2000]")
    parser.add_argument("--work", type=Path, help="keeps the results here for the next run")
    run_and_save(parser, run)


if __name__ == "__main__":
    main()
