"""Addresses of remote files, and what their stores say of them. fsspec is imported when it is needed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
# What stores say of a file's content, the surest first: s3, gs, az, http, hf; then when it changed.
_TAGS = (
    *("ETag", "etag", "md5Hash", "Content-MD5", "Digest", "blob_id", "generation"),
    *("LastModified", "Last-Modified", "last_modified", "mtime", "modify", "created"),
)


@dataclass(frozen=True)
class Stored:
    """What its store says of a file. size: bytes. tag: another one when the content changes, "" where none is said."""

    size: int | None = None
    tag: str = ""


def is_remote(path: str) -> bool:
    return _ADDRESS.match(path) is not None


def local_path(address: str) -> str | None:
    """Of an address of this machine's files; None for others."""
    return unquote(urlsplit(address).path) if address.startswith(("file://", "local://")) else None


def shown(address: str) -> str:
    """Without what may be secret: a password, and the signature behind the question mark."""
    return re.sub(r"(?<=://)[^/@]*@", "", address.partition("?")[0])


def file_system(address: str) -> tuple[Any, str]:
    """fsspec's file system for an address, and the path in it.

    Raises ValueError that says what to install, and for a scheme that fsspec does not know."""
    try:
        import fsspec
    except ImportError:
        raise ValueError(f"{shown(address)}: reading it needs fsspec; install videoprune[remote]") from None
    try:
        fs, path = fsspec.core.url_to_fs(address, **_options(address))
    except ImportError as error:
        raise ValueError(
            f"{shown(address)}: {error}; install videoprune[remote] for http, beside it s3fs for s3, gcsfs for gs"
        ) from error
    except ValueError as error:
        raise ValueError(f"{shown(address)}: {error}; allowed: what fsspec knows") from error
    return fs, str(path)


def _options(address: str) -> dict[str, Any]:
    """Of HTTP: aiohttp would give up any file after five minutes. The user's settings of fsspec come first."""
    if not address.startswith(("http://", "https://")):
        return {}
    from aiohttp import ClientTimeout
    from fsspec.config import conf

    own = {"timeout": ClientTimeout(total=None, sock_connect=30)}
    for protocol in ("http", "https"):
        own |= conf.get(protocol, {}).get("client_kwargs", {})
    return {"client_kwargs": own}


def stored(info: Mapping[str, Any]) -> Stored:
    """From fsspec's account of a file."""
    tag = next((f"{name} {info[name]}" for name in _TAGS if info.get(name)), "")
    size = info.get("size")
    return Stored(size if isinstance(size, int) else None, tag)
