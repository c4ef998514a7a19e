"""URLs as slide paths: what is one, and how it is shown without the secrets it may carry."""

from __future__ import annotations

import re

_USER = re.compile(r"(?<=://)[^/@\s?#'\"]+@")
_SECRET = re.compile(
    r"(?i)(?<=[?&])((?:x-amz-|x-goog-)[\w-]+|awsaccesskeyid|api[_-]?key|expires|password|secret|sig|signature"
    r"|[\w-]*token)=[^&\s#'\"]*"
)


def is_url(path: str) -> bool:
    """Tell whether a path is a URL that fsspec would open."""
    return "://" in path


def last_part(url: str) -> str:
    """Return the file's name in a URL, without the query (`?…`)."""
    return url.partition("?")[0].rstrip("/").rpartition("/")[2]


def is_store_url(url: str) -> bool:
    """Tell whether a URL's name is that of an OME-Zarr store, as a folder or in a zip file."""
    return last_part(url).lower().endswith((".zarr", ".zarr.zip", ".ozx"))


def masked(text: str) -> str:
    """Return a text in which users, passwords, tokens and signatures of URLs are replaced by ***.

    A signed URL looks the same after each signing, so that it can stand for its slide in a results folder.
    """
    if "://" not in text:
        return text
    return _SECRET.sub(r"\1=***", _USER.sub("***@", text))
