# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The files of the page, which are part of the package.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files

_TYPES = {
    "html": b"text/html; charset=utf-8",
    "css": b"text/css; charset=utf-8",
    "js": b"text/javascript; charset=utf-8",
    "svg": b"image/svg+xml",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Asset:
    """
    One file of the page.

    @ivar tag: its ETag, which changes with its content.
    """

    data: bytes
    contentType: bytes
    tag: bytes


def _load() -> dict[bytes, Asset]:
    assets = {}
    for file in files(__package__).joinpath("static").iterdir():
        kind = _TYPES.get(file.name.rpartition(".")[2])
        if kind is not None:
            data = file.read_bytes()
            tag = f'"{sha256(data).hexdigest()[:16]}"'.encode("ascii")
            # The page has no name of its own.
            name = b"" if file.name == "index.html" else file.name.encode("ascii")
            assets[name] = Asset(data=data, contentType=kind, tag=tag)
    return assets


ASSETS = _load()
"""The files by the last part of their address."""
