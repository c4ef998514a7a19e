from __future__ import annotations

import pytest

from wsi_attention.export.qupath_geometry import GeometryChecks

RING = [[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]
HOLE = [[2, 2], [2, 4], [4, 4], [4, 2], [2, 2]]


def problems(*geometries, extent=None) -> list[tuple[int, str]]:
    checks = GeometryChecks(extent)
    said = [(k, checks.take(k, one)) for k, one in enumerate(geometries)]
    return [(k, text) for k, text in said if text] + checks.finish()


def polygon(*rings) -> dict:
    return {"type": "Polygon", "coordinates": list(rings)}


SOUND = [
    polygon(RING),
    polygon(RING, HOLE),
    polygon(RING[::-1]),
    polygon([[*point, 0] for point in RING]),
    {"type": "MultiPolygon", "coordinates": [[RING, HOLE], [[[x + 20, y] for x, y in RING]]]},
    {"type": "Point", "coordinates": [1, 2.5]},
    {"type": "MultiPoint", "coordinates": [[1, 2]]},
    {"type": "LineString", "coordinates": [[1, 2], [3, 4]]},
    {"type": "MultiLineString", "coordinates": [[[1, 2], [3, 4]]]},
]


def test_every_sound_geometry_passes_alone_and_together() -> None:
    for one in SOUND:
        assert problems(one) == []
    assert problems(*SOUND, *SOUND) == []


BROKEN = {
    "bow tie": (polygon([[0, 0], [10, 10], [10, 0], [0, 10], [0, 0]]), "Self-intersection"),
    "hole outside": (polygon(RING, [[x + 30, y] for x, y in HOLE]), "Hole lies outside"),
    "overlapping parts": ({"type": "MultiPolygon", "coordinates": [[RING], [RING]]}, "invalid"),
    "spike": (polygon([[0, 0], [10, 0], [20, 0], [0, 0]]), "invalid"),
    "all one point": (polygon([[3, 3], [3, 3], [3, 3], [3, 3]]), "invalid"),
    "too small for 1/100 px": (polygon([[0, 0], [0.001, 0], [0.001, 0.001], [0, 0]]), "no area"),
    "open": (polygon(RING[:-1]), "not closed"),
    "three points": (polygon([[0, 0], [1, 1], [0, 0]]), "at least 4"),
    "NaN": (polygon([[0, 0], [float("nan"), 0], [1, 1], [0, 0]]), "no finite number"),
    "huge": (polygon([[0, 0], [10**400, 0], [1, 1], [0, 0]]), "no finite number"),
    "text": (polygon([["0", 0], [1, 0], [1, 1], ["0", 0]]), "no finite number"),
    "null": (polygon([[0, None], [1, 0], [1, 1], [0, None]]), "no finite number"),
    "true": (polygon([[True, 0], [1, 0], [1, 1], [True, 0]]), "no finite number"),
    "one number": (polygon([[0], [1], [2], [0]]), "must be [x, y]"),
    "not nested": (polygon(*RING), "must be [x, y]"),
    "nested too deep": (polygon([RING]), "must be [x, y]"),
    "no rings": (polygon(), "nested"),
    "empty ring": (polygon([]), "nested"),
    "no coordinates": ({"type": "Polygon"}, "nested"),
    "line of one": ({"type": "LineString", "coordinates": [[1, 2]]}, "two points"),
    "collection": ({"type": "GeometryCollection", "geometries": []}, "none that QuPath reads"),
    "lower case": ({"type": "polygon", "coordinates": [RING]}, "none that QuPath reads"),
    "type a list": ({"type": ["Polygon"], "coordinates": [RING]}, "none that QuPath reads"),
    "empty": ({}, "missing or empty"),
    "missing": (None, "missing or empty"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_geometry_is_found_among_sound_ones(case: str) -> None:
    bad, words = BROKEN[case]
    found = problems(*SOUND, bad, *SOUND)
    assert {index for index, _ in found} == {len(SOUND)}, found
    assert any(words in text for _, text in found), found


def test_the_first_point_outside_is_named_per_feature() -> None:
    found = problems(*SOUND[:2], polygon([[x - 5, y] for x, y in RING]), extent=(10, 10))
    assert found == [(2, "(-5, 0) lies outside the 10 x 10 px image; is the bounds offset right?")]
