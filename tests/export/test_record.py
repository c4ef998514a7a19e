from __future__ import annotations

import base64
import copy
import json
import math
import tracemalloc
import zlib
from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest

from wsi_attention.errors import InputError, ResultsError
from wsi_attention.export import record as record_module
from wsi_attention.export.record import from_record, to_record
from wsi_attention.testing.exporters import EXAMPLES, example_prediction


def through_json(prediction):
    return from_record(json.loads(json.dumps(to_record(prediction), allow_nan=False)))


def same(a, b) -> bool:
    """Equal in type, bits, shape and dtype, all the way down."""
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if is_dataclass(a):
        return type(a) is type(b) and all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    if isinstance(a, tuple | list):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return type(b) is float and (a == b or (math.isnan(a) and math.isnan(b)))
    return type(a) is type(b) and a == b


@pytest.mark.parametrize("kind", EXAMPLES)
def test_there_and_back_is_the_same_to_the_last_bit(kind: str) -> None:
    prediction = example_prediction(3, kind)
    assert same(prediction, through_json(prediction))
    assert json.dumps(to_record(prediction)) == json.dumps(to_record(through_json(prediction)))


def test_awkward_floats_survive() -> None:
    prediction = example_prediction()
    attention = prediction.glimpses[0].attention.copy()
    attention[:5] = np.nan, np.inf, -0.0, 5e-324, 0.1 + 0.2
    odd = replace(
        prediction,
        spread=5e-324,
        mpp=0.1 + 0.2,
        probabilities=np.array([1 / 3, 2 / 3]),
        glimpses=(replace(prediction.glimpses[0], attention=attention),),
        provenance={"seed": 2**64 - 1, "x": 1e-300, "ü": None, "list": [1, {"a": True}]},
    )
    assert same(odd, through_json(odd))


@pytest.mark.parametrize(("told", "known"), [(0.0, None), ("nan", None), (0.25, 0.25)])
def test_records_of_earlier_versions_had_0_where_nothing_was_drawn(told: object, known: float | None) -> None:
    record = to_record(example_prediction())
    for name in ("unread_mass", "purpose"):
        del record[name]
    del record["glimpses"][0]["drawn"]
    found = from_record({**record, "spread": told})
    assert (found.spread, found.unread_mass, found.purpose) == (known, None, "")
    assert found.glimpses[0].drawn == (known is not None)
    assert from_record({**to_record(example_prediction()), "spread": 0.0}).spread == 0.0


@pytest.mark.parametrize("share", [-0.1, 1.1, "nan", "much"])
def test_an_unread_mass_is_a_share(share: object) -> None:
    with pytest.raises(ResultsError, match="unread_mass"):
        from_record({**to_record(example_prediction()), "unread_mass": share})


def test_arrays_can_be_written_to_afterwards() -> None:
    assert through_json(example_prediction()).maps[0].values.flags.writeable


def test_provenance_must_be_plain() -> None:
    with pytest.raises(InputError, match=r"example usual 0\.svs: not JSON-able"):
        to_record(replace(example_prediction(), provenance={"path": object()}))
    with pytest.raises(InputError, match="not JSON-able"):
        to_record(replace(example_prediction(), provenance={"x": float("nan")}))


def packed(values, dtype, shape=None) -> dict:
    raw = np.asarray(values).tobytes()
    shape = list(np.shape(values)) if shape is None else shape
    return {"dtype": dtype, "shape": shape, "zlib": base64.b64encode(zlib.compress(raw)).decode()}


def changed(path: str, value) -> dict:
    record = json.loads(json.dumps(to_record(example_prediction())))
    *way, last = path.split("/")
    place = record
    for step in way:
        place = place[int(step)] if step.isdigit() else place[step]
    if value is KeyError:
        del place[last]
    else:
        place[last] = value
    return record


HOSTILE = {
    "another format": ("format", 99),
    "format missing": ("format", KeyError),
    "field missing": ("mpp", KeyError),
    "array missing": ("glimpses/0/weights", KeyError),
    "slide a number": ("slide", 3),
    "extent of three": ("extent", [1, 2, 3]),
    "extent negative": ("extent", [-1, 2]),
    "extent a float": ("extent", [1.5, 2]),
    "extent true": ("extent", [True, 2]),
    "mpp zero": ("mpp", 0),
    "mpp nan": ("mpp", "nan"),
    "mpp text": ("mpp", "0.25"),
    "mpp true": ("mpp", True),
    "mpp huge": ("mpp", 10**400),
    "classes text": ("classes", "ab"),
    "no class": ("classes", []),
    "one class too many": ("classes", ["a", "b", "c"]),
    "class a number": ("classes", ["a", 3]),
    "probabilities nan": ("probabilities", packed(np.array([np.nan, 1.0]), "float64")),
    "probabilities of another type": ("probabilities", packed(np.array([0, 1], np.int64), "int64")),
    "glimpses an object": ("glimpses", {}),
    "glimpse a number": ("glimpses", [3]),
    "weights too few": ("glimpses/0/weights", packed(np.ones(3), "float64")),
    "locations flat": ("glimpses/0/locations", packed(np.ones(64, np.int64), "int64")),
    "dtype object": ("glimpses/0/weights/dtype", "object"),
    "shape negative": ("maps/0/values/shape", [-63, 80]),
    "shape text": ("maps/0/values/shape", "63"),
    "shape too small": ("maps/0/values/shape", [62, 80]),
    "shape too large": ("maps/0/values/shape", [64, 80]),
    "shape enormous": ("maps/0/values/shape", [10**9, 10**9]),
    "empty map": ("maps/0/values", packed(np.empty((0, 3), np.float32), "float32")),
    "base64": ("maps/0/values/zlib", "a*b"),
    "not zlib": ("maps/0/values/zlib", base64.b64encode(b"plain").decode()),
    "data a number": ("maps/0/values/zlib", 3),
    "step zero": ("maps/0/grid/step", [0, 1]),
    "origin infinite": ("maps/0/grid/origin", ["inf", 0]),
    "downsample negative": ("tissue/downsample", -1),
    "mask of floats": ("tissue/mask", packed(np.ones((4, 4)), "float64")),
    "mask of other bytes": ("tissue/mask", packed(np.full((4, 4), 7, np.uint8), "bool")),
    "counters negative": ("counters/tiles", -1),
    "provenance a list": ("provenance", []),
    "notes text": ("notes", "partial"),
    "shortfalls of numbers": ("shortfalls", [1]),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_record_is_one_clear_error(case: str) -> None:
    record = changed(*HOSTILE[case])
    with pytest.raises(ResultsError, match=r"^record: .*classify the slide again$") as caught:
        from_record(record)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("record", [None, [], "text", 3, {}])
def test_what_is_no_record_is_refused(record) -> None:
    with pytest.raises(ResultsError, match="classify the slide again"):
        from_record(record)


def test_a_cut_stream_is_damage() -> None:
    record = to_record(example_prediction())
    values = record["maps"][0]["values"]
    values["zlib"] = base64.b64encode(base64.b64decode(values["zlib"])[:-8]).decode()
    with pytest.raises(ResultsError, match="values: expected"):
        from_record(record)


def test_a_bomb_is_never_inflated() -> None:
    bomb = base64.b64encode(zlib.compress(bytes(40 * 2**20))).decode()
    small, large = (copy.deepcopy(to_record(example_prediction())) for _ in range(2))
    small["maps"][0]["values"]["zlib"] = bomb
    large["tissue"]["mask"] = {"dtype": "bool", "shape": [300, 2**20], "zlib": bomb}
    large["maps"][0]["values"] = {"dtype": "float32", "shape": [75, 2**20], "zlib": bomb}
    tracemalloc.start()
    for record in (small, large):
        with pytest.raises(ResultsError):
            from_record(record)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * 2**20


def test_all_arrays_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    record = to_record(example_prediction())
    one = {**record["maps"][0], "values": packed(np.zeros((300, 1024), np.float32), "float32")}
    monkeypatch.setattr(record_module, "MAX_BYTES", 2 * 2**20)
    from_record({**record, "maps": [one]})
    with pytest.raises(ResultsError, match="more than 2 MiB"):
        from_record({**record, "maps": [one, one]})


def test_a_record_of_0_1_knew_shortfalls_as_notes() -> None:
    record = to_record(example_prediction())
    record["notes"] = record.pop("shortfalls")
    assert (from_record(record).status, from_record(record).notes) == ("partial", ())
