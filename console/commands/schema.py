"""`callfold schema`: lists the schemas of published messages, or prints one."""

from __future__ import annotations

import sys

import orjson

from shared.errors import ConfigError
from shared.schemas.catalog import encoded, schemas

_PATH_WIDTH = 46


def list_schemas(*, as_json: bool) -> None:
    """Print path and description of every schema."""
    for path, schema in sorted(schemas().items()):
        if as_json:
            row = {"path": path, "id": schema["$id"], "title": schema["title"], "description": schema["description"]}
            sys.stdout.write(orjson.dumps(row).decode() + "\n")
        else:
            sys.stdout.write(f"{path:<{_PATH_WIDTH}}{schema['description'].partition('. ')[0]}.\n")


def print_schema(name: str, *, as_json: bool) -> None:
    """Print a schema, on one line with `as_json`.

    Raises:
        ConfigError: there is no such schema.
    """
    path = _find(name)
    body = orjson.dumps(schemas()[path]) + b"\n" if as_json else encoded(path)
    sys.stdout.write(body.decode())


def _find(name: str) -> str:
    """Return the path of a schema that is named by its path, its URI, its type, or its name without a version."""
    requested = name.rpartition("docs/schemas/")[2].removesuffix(".json")
    latest = ""
    for path in sorted(schemas()):
        stem, _, version = path.removesuffix(".json").partition("/")
        if requested in {f"{stem}/{version}", f"{stem}.{version}"}:
            return path
        latest = path if requested == stem else latest
    if not latest:
        raise ConfigError(f'Unknown schema "{name}". `callfold schema` lists all of them.')
    return latest
