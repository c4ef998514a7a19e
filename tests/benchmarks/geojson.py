"""QuPath GeoJSON: what arrives of 100 random predictions, and the time and size of 20,000 tiles.

    python tests/benchmarks/geojson.py [--predictions 100] [--tiles 20000]

Every file is written twice and read as QuPath reads it (`export.qupath_reader`, compared with QuPath's own classes by
tests/plugins/test_qupath.py): an object is dropped if its id does not arrive, reclassified if it arrives as another
kind or class, changed if its outline, name or measurements differ. Writing includes checking what is written.
"""

from __future__ import annotations

import gzip
import json
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import shapely
from common import machine, options_parser, save, table
from qupath_reader import QuPathObject, read_objects

from wsi_attention.export.geojson import GeoJSONExporter
from wsi_attention.structures import Glimpse, Prediction, TileSet
from wsi_attention.testing.exporters import EXAMPLES, example_prediction


def random_prediction(seed: int) -> Prediction:
    """One of the kinds of example predictions with random tiles, sizes, bounds and class names."""
    rng = np.random.default_rng(seed)
    kinds = list(EXAMPLES)
    found = example_prediction(seed, kinds[seed % len(kinds)], tiles=int(rng.integers(1, 400)))
    names = ("normal", "tumour"), ("a: b", "Übergang"), ("0", "Tumor, G3"), ("Ignore*", "λ/μ")
    bounds = tuple(int(value) for value in rng.integers(0, max(1, min(found.extent) // 4), 2))
    return replace(found, classes=names[seed % len(names)], bounds=bounds)


def differences(prediction: Prediction, path: Path, bounds: Any) -> dict[str, int]:
    """What is written of a prediction, and what of it does not arrive as meant."""
    GeoJSONExporter(bounds)(prediction, path)
    first = path.read_bytes()
    GeoJSONExporter(bounds)(prediction, path)
    written = {one["id"]: one for one in json.loads(first)["features"]}
    arrived = {one.identity: one for one in read_objects(path)}
    both = [(written[name], arrived[name]) for name in written.keys() & arrived.keys()]
    return {
        "objects": len(written),
        "dropped": len(written.keys() - arrived.keys()),
        "reclassified": sum(_reclassified(one, other) for one, other in both),
        "changed": sum(_changed(one, other) for one, other in both),
        "files that differ": int(path.read_bytes() != first),
    }


def _reclassified(written: dict[str, Any], arrived: QuPathObject) -> bool:
    properties = written["properties"]
    parts = tuple(part.strip() for part in properties["classification"]["name"].split(":"))
    return (arrived.kind, arrived.classes) != (properties["objectType"], parts)


def _changed(written: dict[str, Any], arrived: QuPathObject) -> bool:
    properties = written["properties"]
    numbers = {name: float(np.float32(value)) for name, value in properties["measurements"].items()}
    same = shapely.equals(shapely.geometry.shape(written["geometry"]), arrived.shape)
    return not (same and arrived.measurements == numbers and arrived.name == properties.get("name"))


def large_prediction(tiles: int) -> Prediction:
    """A slide of 100,000² and this many tiles, no two alike."""
    rng = np.random.default_rng(0)
    locations = rng.integers(0, 99_000, (tiles, 2))
    weights = rng.dirichlet(np.ones(tiles))
    glimpse = Glimpse(TileSet(locations, (256, 256), 2.0), weights, weights, np.full(tiles, True))
    return replace(example_prediction(), extent=(100_000, 100_000), bounds=(0, 0), glimpses=(glimpse,))


def writing(prediction: Prediction, path: Path, repeats: int) -> dict[str, list[float]]:
    """Seconds to write a file, by the clock and of the processor."""
    found: dict[str, list[float]] = {"clock": [], "processor": []}
    GeoJSONExporter()(prediction, path)
    for _ in range(repeats):
        clock, processor = time.perf_counter(), time.process_time()
        GeoJSONExporter()(prediction, path)
        found["clock"].append(time.perf_counter() - clock)
        found["processor"].append(time.process_time() - processor)
    return found


def main() -> None:
    """Measure, print and save."""
    parser = options_parser(__doc__, "geojson")
    parser.add_argument("--predictions", type=int, default=100)
    parser.add_argument("--tiles", type=int, default=20_000)
    options = parser.parse_args()
    began = machine()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.geojson"
        made = [differences(random_prediction(k), path, ("auto", "none")[k % 2]) for k in range(options.predictions)]
        total = {name: sum(one[name] for one in made) for name in made[0]}
        seconds = writing(large_prediction(options.tiles), path, options.repeats)
        sizes = {"plain": path.stat().st_size, "gzip": len(gzip.compress(path.read_bytes(), 6))}
    print(table(["predictions", *total], [[str(options.predictions), *map(str, total.values())]]))
    rows = [[name, f"{min(values):.2f}", f"{sorted(values)[len(values) // 2]:.2f}"] for name, values in seconds.items()]
    print(table([f"seconds, {options.tiles} tiles", "best", "median"], rows))
    print(f"{sizes['plain'] / 1e6:.2f} MB, {sizes['gzip'] / 1e6:.2f} MB compressed")
    save(options.json, options, {"arrived": total, "seconds": seconds, "bytes": sizes}, began)


if __name__ == "__main__":
    main()
