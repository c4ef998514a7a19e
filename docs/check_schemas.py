"""Compare the JSON schemas with real files: classify the sample slides, then validate all that was written.

python docs/check_schemas.py
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from json_schemas import schemas
from jsonschema import Draft202012Validator

from wsi_attention import classify
from wsi_attention.checkpoint import SHIPPED

SAMPLES = Path(__file__).resolve().parent.parent / "sample_slides"


def files(results: Path) -> Iterator[tuple[str, Path]]:
    """Yield (name of a schema, file) for everything that has a schema."""
    yield from (("state", path) for path in sorted((results / "states").rglob("*.json")))
    yield from (("geojson", path) for path in sorted((results / "geojson").rglob("*.geojson")))
    yield from (("model", path) for path in sorted(SHIPPED.glob("*/config.json")))


def main() -> None:
    """Stop at the first file that its schema refuses."""
    known = schemas()
    for schema in known.values():
        Draft202012Validator.check_schema(schema)
    with TemporaryDirectory() as folder:
        empty = Path(folder) / "broken.svs"
        empty.write_bytes(b"no slide")  # a state without a prediction
        classify([SAMPLES, empty], Path(folder) / "results", "demo", what="geojson")
        seen = dict.fromkeys(known, 0)
        for name, path in files(Path(folder) / "results"):
            errors = [*Draft202012Validator(known[name]).iter_errors(json.loads(path.read_text(encoding="utf-8")))]
            if errors:
                sys.exit(f"{path.name} is not as {name}.json says: {errors[0].json_path}: {errors[0].message:.200}")
            seen[name] += 1
    print(*(f"{name}.json holds for {count} files" for name, count in seen.items()), sep="\n")
    if not all(seen.values()):
        sys.exit("a schema met no file")


if __name__ == "__main__":
    main()
