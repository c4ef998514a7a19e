"""URLs as slide paths: what is one, and how it is shown without the secrets it may carry."""

from __future__ import annotations

import re

_USER = re.compile(r"(?<=://)[^/@\s?#'\"]+@")
_SECRET = re.compile(
    r"(?i)(?<=[?&])((?:x-amz-|x-goog-)[\w-]+|awsaccesskeyid|expires|key|password|policy|se|secret|sig|signature|sv"
    r"|[\w-]*token)=[^&\s#'\"]*"
)


def is_url(path: str) -> bool:
    """Whether a path is a URL that fsspec would open."""
    return "://" in path


def is_store_url(url: str) -> bool:
    """Whether a URL's name is that of an OME-Zarr store, as a folder or in a zip file."""
    return url.partition("?")[0].rstrip("/").lower().endswith((".zarr", ".zarr.zip", ".ozx"))


def masked(text: str) -> str:
    """A text with users, passwords, tokens and signatures of the URLs in it as ***.

    A signed URL looks the same after each signing, so that it can stand for its slide in a results folder.
    """
    if "://" not in text:
        return text
    return _SECRET.sub(r"\1=***", _USER.sub("***@", text))
