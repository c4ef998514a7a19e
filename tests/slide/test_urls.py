"""URLs are shown without their secrets, and otherwise left as they are."""

from __future__ import annotations

import pytest

from wsi_attention.slide.urls import is_store_url, is_url, last_part, masked


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://host/a.svs", "https://host/a.svs"),
        ("https://host/a@b.svs?key=7&page=2", "https://host/a@b.svs?key=7&page=2"),
        ("https://ann:pa%40ss@host:8080/a.svs", "https://***@host:8080/a.svs"),
        ("https://token@host/a.svs", "https://***@host/a.svs"),
        ("https://host/a.svs?sv=1&sig=a%2Fb&v=2", "https://host/a.svs?sv=1&sig=***&v=2"),
        (
            "https://b.s3.aws.com/a.svs?X-Amz-Date=1&X-Amz-Signature=ab12&versionId=3",
            "https://b.s3.aws.com/a.svs?X-Amz-Date=***&X-Amz-Signature=***&versionId=3",
        ),
        ("https://host/a.svs?access_token=abc#top", "https://host/a.svs?access_token=***#top"),
        ("s3://bucket/a.svs", "s3://bucket/a.svs"),
        ("/data/sig=a/token=b.svs", "/data/sig=a/token=b.svs"),
        ("cannot read 'https://u:p@h/a?sig=x', 5 left", "cannot read 'https://***@h/a?sig=***', 5 left"),
    ],
)
def test_masked(url: str, shown: str) -> None:
    assert masked(url) == shown
    assert masked(shown) == shown


def test_names() -> None:
    assert is_url("s3://b/a.svs")
    assert not is_url("/data/a.svs")
    assert last_part("https://host/x/a.svs?b=c/d") == "a.svs"
    assert is_store_url("s3://b/a.ome.ZARR/")
    assert is_store_url("https://h/a.zarr?x=1")
    assert not is_store_url("https://h/zarr/a.svs")
