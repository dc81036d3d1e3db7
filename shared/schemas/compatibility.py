"""Compares a schema with the one of the last release: whether a consumer of the earlier one can read what the new one allows.

A consumer knows the earlier schema, ignores fields that it does not know, and receives events of the new one. So:

- A new field is no problem. If it is required, events of the earlier release lack it, so that is a problem for new consumers.
- A field must not be removed or renamed, and one that was required must stay so.
- No type and no value may be added to those that a field could have, unless the earlier schema allows any other text.
- A further kind of raw event may be added (`oneOf`): consumers skip kinds that they do not know, as they do types of events.
- No type and no value may be removed: a replay still has events with them, which the new schema must allow.
- A range, a pattern or a format must stay as it is, for both reasons.

Titles, descriptions and examples may change. The comparison is pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from shared.schemas.generation import Json

_TEXTS = frozenset({"title", "description", "examples", "$schema", "$id", "$defs", "$comment"})
_COMPARED = frozenset(
    {"properties", "required", "anyOf", "oneOf", "items", "then", "else", "type", "enum", "const", "additionalProperties"}
)
_ABSENT = object()


def problems_of_change(before: Mapping[str, Json], after: Mapping[str, Json]) -> list[str]:
    """Return what the schemas `after` break for consumers of the schemas `before`, both by path; [] if nothing."""
    problems = [f"{path}: was removed" for path in before.keys() - after.keys()]
    for path in before.keys() & after.keys():
        problems += [f"{path}: {problem}" for problem in _Comparison(before[path], after[path]).problems()]
    return sorted(problems)


class _Comparison:
    """The comparison of two schemas, each with its own definitions."""

    def __init__(self, before: Json, after: Json) -> None:
        self._before, self._after = before, after
        self._compared: set[tuple[str, str]] = set()

    def problems(self) -> Iterator[str]:
        return self._compare(self._before, self._after, "")

    def _compare(self, before: Json, after: Json, at: str) -> Iterator[str]:
        """Compare two schemas of one value; `at` is its place, such as `data.agent.state`."""
        pair = _without_texts(before), _without_texts(after)
        if "$ref" in before or "$ref" in after:
            if pair in self._compared:
                return
            self._compared.add(pair)
        before, after = _resolved(before, self._before), _resolved(after, self._after)
        yield from self._compare_fields(before, after, at)
        yield from _compare_values(before, after, at)
        yield from self._compare_branches(before.get("anyOf", []), after.get("anyOf", []), at)
        yield from self._compare_kinds(before.get("oneOf", []), after.get("oneOf", []), at)
        for name, suffix in (("items", "[]"), ("additionalProperties", ".*"), ("then", ""), ("else", "")):
            yield from self._compare_parts(before.get(name, True), after.get(name, True), f"{at}{suffix}")
        for name in (before.keys() | after.keys()) - _TEXTS - _COMPARED - {"$ref"}:
            if before.get(name, _ABSENT) != after.get(name, _ABSENT):
                yield f"{_place(at)}: `{name}` was {before.get(name)!r} and is {after.get(name)!r}"

    def _compare_fields(self, before: Json, after: Json, at: str) -> Iterator[str]:
        fields, now = before.get("properties", {}), after.get("properties", {})
        required, required_now = set(before.get("required", ())), set(after.get("required", ()))
        for name in sorted(fields.keys() - now.keys()):
            yield f"{_place(f'{at}.{name}')}: was removed or renamed"
        for name in sorted((required - required_now) & now.keys()):
            yield f"{_place(f'{at}.{name}')}: was required and is optional"
        for name in sorted(required_now - required):
            yield f"{_place(f'{at}.{name}')}: is required, but events of the earlier release can lack it"
        for name in sorted(fields.keys() & now.keys()):
            yield from self._compare_parts(fields[name], now[name], f"{at}.{name}")

    def _compare_parts(self, before: Any, after: Any, at: str) -> Iterator[str]:  # noqa: ANN401 - a schema, or true or false
        if isinstance(before, dict) and isinstance(after, dict):
            yield from self._compare(before, after, at)
        elif before != after:
            yield f"{_place(at)}: its schema was {_shown(before)} and is {_shown(after)}"

    def _compare_branches(self, before: list[Json], after: list[Json], at: str) -> Iterator[str]:
        """Compare the branches of a choice, in their order. A list of values that may grow is two of them."""
        if len(before) != len(after):
            yield f"{_place(at)}: had {len(before)} alternatives and has {len(after)}"
        for old, new in zip(before, after, strict=False):
            is_open = any(branch.get("type") == "string" and not branch.keys() & {"enum", "const"} for branch in before)
            if is_open and "enum" in old and "enum" in new:
                for value in sorted(set(old["enum"]) - set(new["enum"])):
                    yield f"{_place(at)}: the value {value!r} was removed"
            else:
                yield from self._compare(old, new, at)

    def _compare_kinds(self, before: list[Json], after: list[Json], at: str) -> Iterator[str]:
        """Compare kinds of an object. Their definitions identify them."""
        now = {str(branch.get("$ref")): branch for branch in after}
        for branch in before:
            name = str(branch.get("$ref"))
            if name in now:
                yield from self._compare(branch, now[name], at)
            else:
                yield f"{_place(at)}: the kind {name.rpartition('/')[2]} was removed"


def _compare_values(before: Json, after: Json, at: str) -> Iterator[str]:
    """Compare the types and the listed values of a field."""
    for name in ("type", "enum", "const"):
        old, new = _listed(before.get(name)), _listed(after.get(name))
        if (old is None) != (new is None):
            yield f"{_place(at)}: `{name}` was {before.get(name)!r} and is {after.get(name)!r}"
        elif old is not None and new is not None:
            for value in old:
                if value not in new:
                    yield f"{_place(at)}: `{name}` {value!r} was removed"
            for value in new:
                if value not in old:
                    yield f"{_place(at)}: `{name}` {value!r} was added"


def _listed(value: object) -> list[object] | None:
    if value is None:
        return None
    return value if isinstance(value, list) else [value]


def _resolved(schema: Json, document: Json) -> Json:
    """Return a schema with what its reference names. References lead to the document's own definitions alone."""
    reference = schema.get("$ref")
    if reference is None:
        return schema
    definition: Json = document["$defs"][str(reference).removeprefix("#/$defs/")]
    return {**definition, **{name: value for name, value in schema.items() if name != "$ref"}}


def _without_texts(schema: Json) -> str:
    """Return what identifies a schema that is a reference: the reference, and further limits next to it."""
    return repr(sorted((name, repr(value)) for name, value in schema.items() if name not in _TEXTS))


def _place(at: str) -> str:
    return at.removeprefix(".") or "the whole"


def _shown(schema: object) -> str:
    return "an object" if isinstance(schema, dict) else str(schema)
