"""A schema may only change so that consumers of the last release read what the next one publishes, and the reverse."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import orjson
import pytest

from shared.schemas.__main__ import RELEASED, release
from shared.schemas.catalog import schemas
from shared.schemas.compatibility import problems_of_change
from shared.schemas.generation import extensible

SCHEMAS = Path(__file__).parents[3] / "docs" / "schemas"
Json = dict[str, Any]
COMPLETED = "callfold.call.completed/v1.json"


def released(directory: Path) -> dict[str, Json]:
    root = directory / RELEASED
    return {file.relative_to(root).as_posix(): orjson.loads(file.read_bytes()) for file in root.glob("*/*.json")}


def test_the_schemas_are_compatible_with_those_of_the_last_release() -> None:
    """If no release has published a schema in the form that it had, `python -m shared.schemas --release` takes the new form."""
    assert problems_of_change(released(SCHEMAS), dict(schemas())) == []


def test_a_release_keeps_its_schemas(tmp_path: Path) -> None:
    release(tmp_path)
    assert released(tmp_path / "schemas") == schemas()


def base() -> Json:
    leg = {
        "title": "Leg",
        "type": "object",
        "properties": {"state": {"type": "string", "enum": ["ended", "missed"]}, "seconds": {"type": "number", "minimum": 0}},
        "required": ["state"],
    }
    return {
        "title": "Call",
        "type": "object",
        "properties": {
            "id": {"type": "string", "pattern": "^a"},
            "at": {"type": ["string", "null"], "format": "date-time"},
            "leg": {"anyOf": [{"$ref": "#/$defs/Leg"}, {"type": "null"}]},
            "legs": {"type": "array", "items": {"$ref": "#/$defs/Leg"}},
            "names": {"type": "object", "additionalProperties": {"type": "string"}},
            "reason": extensible(["busy", "gone"]),
            "event": {"oneOf": [{"$ref": "#/$defs/Kind"}]},
            "version": {"const": 1, "type": "integer"},
        },
        "required": ["id"],
        "$defs": {"Leg": leg, "Kind": {"type": "object"}},
    }


def changed(change: Callable[[Json, Json], object]) -> list[str]:
    """Apply a change to the fields of the call and to the definition of the leg."""
    after = deepcopy(base())
    change(after["properties"], after["$defs"]["Leg"])
    return problems_of_change({"x": base()}, {"x": after})


HARMLESS: dict[str, Callable[[Json, Json], object]] = {
    "nothing": lambda _fields, _leg: None,
    "a new optional field": lambda fields, leg: (fields.update(more={"type": "string"}), leg["properties"].update(more={})),
    "another description": lambda fields, _leg: fields["id"].update(description="x", title="y", examples=["a"]),
    "a further reason": lambda fields, _leg: fields.update(reason=extensible(["busy", "gone", "lost"])),
    "a further kind": lambda fields, _leg: fields["event"]["oneOf"].insert(0, {"type": "object"}),
}
HARMFUL: dict[str, tuple[Callable[[Json, Json], object], str]] = {
    "a removed field": (lambda fields, _leg: fields.pop("at"), "at: was removed or renamed"),
    "a renamed field of a definition": (
        lambda _fields, leg: leg["properties"].update(condition=leg["properties"].pop("state")),
        "leg.state: was removed or renamed",
    ),
    "another type": (lambda fields, _leg: fields["id"].update(type="integer"), "id: `type` 'string' was removed"),
    "a narrower type": (lambda fields, _leg: fields["at"].update(type="string"), "at: `type` 'null' was removed"),
    "a wider type": (lambda fields, _leg: fields["id"].update(type=["string", "null"]), "id: `type` 'null' was added"),
    "a type of items": (lambda fields, _leg: fields["legs"].update(items={"type": "string"}), "legs[]: `type`"),
    "a type of values": (
        lambda fields, _leg: fields["names"].update(additionalProperties={"type": "integer"}),
        "names.*: `type` 'string' was removed",
    ),
    "no further values": (lambda fields, _leg: fields["names"].update(additionalProperties=False), "names.*: its schema was"),
    "a removed value": (lambda _fields, leg: leg["properties"]["state"]["enum"].pop(), "leg.state: `enum` 'missed' was removed"),
    "a further value": (
        lambda _fields, leg: leg["properties"]["state"]["enum"].append("lost"),
        "leg.state: `enum` 'lost' was added",
    ),
    "values for any text": (lambda fields, _leg: fields["id"].update(enum=["a"]), "id: `enum` was None"),
    "another constant": (lambda fields, _leg: fields["version"].update(const=2), "version: `const` 1 was removed"),
    "another range": (lambda _fields, leg: leg["properties"]["seconds"].update(minimum=1), "leg.seconds: `minimum` was 0"),
    "another pattern": (lambda fields, _leg: fields["id"].update(pattern="^b"), "id: `pattern` was"),
    "no format": (lambda fields, _leg: fields["at"].pop("format"), "at: `format` was"),
    "no null": (lambda fields, _leg: fields["leg"]["anyOf"].pop(), "leg: had 2 alternatives and has 1"),
    "a removed reason": (lambda fields, _leg: fields.update(reason=extensible(["gone"])), "reason: the value 'busy' was removed"),
    "no further reasons": (lambda fields, _leg: fields["reason"]["anyOf"].pop(), "reason: had 2 alternatives and has 1"),
    "a removed kind": (lambda fields, _leg: fields["event"]["oneOf"].clear(), "event: the kind Kind was removed"),
    "a limit of length": (lambda fields, _leg: fields["id"].update(maxLength=3), "id: `maxLength` was"),
    "a limit next to a reference": (
        lambda fields, _leg: fields["legs"]["items"].update(maxProperties=1),
        "legs[]: `maxProperties`",
    ),
    "a required field": (lambda _fields, leg: leg["required"].append("seconds"), "leg.seconds: is required, but"),
    "an optional field": (lambda _fields, leg: leg["required"].clear(), "leg.state: was required and is optional"),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_a_harmless_change_is_compatible(name: str) -> None:
    assert changed(HARMLESS[name]) == []


@pytest.mark.parametrize("name", HARMFUL)
def test_a_harmful_change_is_refused(name: str) -> None:
    change, problem = HARMFUL[name]
    found = changed(change)
    assert [text for text in found if text.startswith(f"x: {problem}")], found


def test_a_schema_that_is_not_published_any_more_is_refused_and_a_new_one_is_not() -> None:
    assert problems_of_change({"x": base()}, {"y": base()}) == ["x: was removed"]


def test_a_definition_that_contains_itself_is_compared_once() -> None:
    tree = {"$ref": "#/$defs/T", "$defs": {"T": {"type": "object", "properties": {"more": {"$ref": "#/$defs/T"}}}}}
    other = deepcopy(tree)
    other["$defs"]["T"]["properties"]["more"] = {"type": "string"}  # type: ignore[index]
    assert problems_of_change({"x": tree}, {"x": tree}) == []
    assert problems_of_change({"x": tree}, {"x": other})


@pytest.mark.parametrize(
    ("definition", "field"), [("CallRecord", "talk_seconds"), ("LegRecord", "guid"), ("IgnoredValue", "reason")]
)
def test_a_field_cannot_vanish_from_a_published_record(definition: str, field: str) -> None:
    after = deepcopy(dict(schemas()))
    del after[COMPLETED]["$defs"][definition]["properties"][field]
    (problem,) = problems_of_change(schemas(), after)
    assert problem.startswith(f"{COMPLETED}: data")
    assert problem.endswith(f"{field}: was removed or renamed")
