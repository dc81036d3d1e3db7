"""Static files of the page: style, scripts, icon. Each URL carries a fingerprint, so browsers may cache it for good."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

_CONTENT_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file, served at `/static/<name>`."""

    name: str
    body: bytes
    content_type: str

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.body).hexdigest()[:12]

    @property
    def url(self) -> str:
        return f"/static/{self.name}?v={self.fingerprint}"


def _load_assets() -> dict[str, Asset]:
    assets = {}
    for file in files("console.page").joinpath("static").iterdir():
        content_type = _CONTENT_TYPES.get(file.name.rpartition(".")[2])
        if content_type:
            assets[file.name] = Asset(file.name, file.read_bytes(), content_type)
    return assets


ASSETS: Mapping[str, Asset] = _load_assets()
_URLS = {name: asset.url for name, asset in ASSETS.items()}


def asset_url(name: str) -> str:
    """Return the URL of a static file. Templates call it as `asset`."""
    return _URLS[name]
