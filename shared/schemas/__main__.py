"""Writes the schemas and the AsyncAPI document into `docs/`: `python -m shared.schemas`.

With `--release`, it also copies the schemas to `docs/schemas/released/`, with which later ones are compared.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from shared.schemas.asyncapi import document
from shared.schemas.catalog import encoded, schemas
from shared.schemas.generation import encode

RELEASED = "released"
_DOCS = Path(__file__).parents[2] / "docs"


def files() -> Mapping[str, bytes]:
    """Return every generated file by its path below `docs/`."""
    return {f"schemas/{path}": encoded(path) for path in schemas()} | {"asyncapi.json": encode(document())}


def write(directory: Path) -> None:
    """Write the files, and delete schemas that are not generated any more."""
    known = files()
    for file in (directory / "schemas").glob("*/*.json"):
        if file.relative_to(directory).as_posix() not in known:
            file.unlink()
    for path, body in known.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(body)


def release(directory: Path) -> None:
    """Copy the schemas as those of this release."""
    for path in schemas():
        copy = directory / "schemas" / RELEASED / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(encoded(path))


if __name__ == "__main__":
    write(_DOCS)
    if sys.argv[1:] == ["--release"]:
        release(_DOCS)
