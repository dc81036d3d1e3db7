"""The files of the page: style, scripts, icon. Their addresses carry a fingerprint, so that a browser may keep them for good."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file; served at `/static/<name>`."""

    name: str
    body: bytes
    content_type: str

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.body).hexdigest()[:12]

    @property
    def url(self) -> str:
        return f"/static/{self.name}?v={self.fingerprint}"


def _assets() -> dict[str, Asset]:
    found = {}
    for file in files("console.page").joinpath("static").iterdir():
        kind = _TYPES.get(file.name.rpartition(".")[2])
        if kind:
            found[file.name] = Asset(file.name, file.read_bytes(), kind)
    return found


ASSETS: Mapping[str, Asset] = _assets()
_URLS = {name: asset.url for name, asset in ASSETS.items()}


def asset_url(name: str) -> str:
    """Name the address of a file; used by the templates."""
    return _URLS[name]
