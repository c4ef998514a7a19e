"""Large packages are imported once, whichever threads need them first; a failing import is no damaged slide."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from wsi_attention.errors import SlideOpenError
from wsi_attention.slide.failures import opening

SLOWLY = """
import importlib.abc, sys, threading, time
seen = []
class Slow(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.startswith(("zarr", "numcodecs")):
            seen.append(name)
            time.sleep(0.01)
sys.meta_path.insert(0, Slow())
from wsi_attention import open_slide
found = []
def opened(path):
    try:
        with open_slide(path, mpp=0.5) as slide:
            found.append(slide.reader)
    except Exception as error:
        found.append(str(error))
first, second = (threading.Thread(target=opened, args=(path,)) for path in sys.argv[1:3])
first.start()
while len(seen) < 8 and first.is_alive():
    time.sleep(0.001)
second.start()
first.join()
second.join()
print(*sorted(found), sep=" | ")
"""


def test_two_threads_that_need_zarr_at_the_same_moment(tmp_path: Path, write_ome_zarr: Callable[..., Path]) -> None:
    strips, store = tmp_path / "strips.tif", write_ome_zarr(tmp_path / "pyramid.ome.zarr.zip")
    tifffile.imwrite(strips, np.full((64, 64, 3), 200, np.uint8), photometric="rgb", metadata=None)
    command = [sys.executable, "-c", SLOWLY, str(strips), str(store)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True)
    assert done.stdout.strip() == "tiffslide | zarr"


def test_a_failing_import_is_no_damaged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half.py").write_text("import sys; sys.modules.pop(__name__); raise KeyError('half')")
    monkeypatch.syspath_prepend(tmp_path)
    half = r"a\.svs: the reader zarr cannot be used here \(KeyError: 'half'\)"
    with pytest.raises(SlideOpenError, match=half), opening("a.svs", "zarr"):
        __import__("half")
    missing = r"cannot be used here \(No module named 'no_such_package'\).*doctor"
    with pytest.raises(SlideOpenError, match=missing), opening("a.svs", "zarr"):
        __import__("no_such_package")
