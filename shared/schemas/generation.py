"""JSON Schemas of types: pydantic reads the types, and the docstrings of their fields become descriptions.

A schema in `docs/schemas/` is open: it allows fields that it does not name, because a later release may add some. `closed` makes
the strict one, by which the tests check that nothing is published that no schema names.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Mapping
from functools import cache
from itertools import pairwise
from typing import Any

import orjson
from pydantic import TypeAdapter

Json = dict[str, Any]  # a schema is free-form JSON
DIALECT = "https://json-schema.org/draft/2020-12/schema"
FURTHER: Json = {"type": "string", "description": "A value that a later release added."}
"""The second branch of a list of values that may grow. `closed` removes it."""


def schema_of(kind: Any, types: Mapping[str, type]) -> Json:  # noqa: ANN401 - any type that pydantic reads
    """Return the schema of a type with its definitions; `types` are the TypedDicts that it is made of, by name."""
    schema = TypeAdapter(kind).json_schema()
    for name, definition in schema.get("$defs", {}).items():
        _describe(definition, types.get(name))
    _describe(schema, types.get(str(schema.get("title"))))
    plain: Json = _walk(schema, _plain)
    return plain


def closed(schema: Json) -> Json:
    """Return a schema that allows no field and no value beyond those that it names."""
    strict: Json = _walk(schema, _closed)
    return strict


def encode(document: Json) -> bytes:
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def extensible(values: list[str]) -> Json:
    """Return the schema of a text that is one of some values, to which later releases may add others."""
    return {"anyOf": [{"enum": sorted(set(values)), "type": "string"}, FURTHER]}


def _describe(definition: Json, kind: type | None) -> None:
    docs = field_docs(kind) if kind is not None else {}
    for name, field in definition.get("properties", {}).items():
        field.pop("title", None)
        if name in docs:
            field["description"] = docs[name]


@cache
def field_docs(kind: type) -> Mapping[str, str]:
    """Return the docstrings of the fields of a TypedDict, those of its bases included."""
    docs: dict[str, str] = {}
    for base in getattr(kind, "__orig_bases__", ()):
        if isinstance(base, type):
            docs |= field_docs(base)
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    lines = body.body if isinstance(body, ast.ClassDef) else []
    for field, doc in pairwise(lines):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(doc, ast.Expr):
            docs[field.target.id] = inspect.cleandoc(str(ast.literal_eval(doc.value)))
    return docs


def _walk(node: Any, change: Callable[[Json], Json]) -> Any:  # noqa: ANN401 - free-form JSON
    """Change each object of a schema, the innermost first, but no condition."""
    if isinstance(node, list):
        return [_walk(part, change) for part in node]
    if isinstance(node, dict):
        return change({name: part if name == "if" else _walk(part, change) for name, part in node.items()})
    return node


def _plain(node: Json) -> Json:
    """Write `null` as a further type, and leave out keywords that JSON Schema does not have."""
    node.pop("discriminator", None)
    match node.get("anyOf"):
        case [{"type": str(kind)} as known, {"type": "null"}] if "enum" not in known and "const" not in known:
            rest = {name: value for name, value in node.items() if name != "anyOf"}
            return {**known, "type": [kind, "null"], **rest}
    return node


def _closed(node: Json) -> Json:
    if FURTHER in node.get("anyOf", ()):
        node = {**node, "anyOf": [branch for branch in node["anyOf"] if branch != FURTHER]}
    if node.get("type") == "object" and "properties" in node and "additionalProperties" not in node:
        node = {**node, "additionalProperties": False}
    return node
