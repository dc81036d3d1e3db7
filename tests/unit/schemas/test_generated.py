"""The schemas in docs/ are those of the code, are valid JSON Schemas, and describe what the code writes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
from jsonschema import Draft202012Validator

from shared.schemas.__main__ import files, write
from shared.schemas.catalog import DEAD_LETTER, path_of, schemas
from shared.schemas.examples import examples
from shared.schemas.generation import closed, extensible
from tests.helpers.schemas import validator

DOCS = Path(__file__).parents[3] / "docs"
EXAMPLES = examples()


def schema_path(name: str) -> str:
    return path_of(name) if name.startswith("callfold.") else f"{name}/v1.json"


def test_the_files_of_the_documentation_are_those_that_the_code_makes(tmp_path: Path) -> None:
    write(tmp_path)
    made = {file.relative_to(tmp_path).as_posix(): file.read_bytes() for file in tmp_path.rglob("*.json")}
    kept = {path: file.read_bytes() for path in made if (file := DOCS / path).is_file()}
    kept |= {f"schemas/{file.parent.name}/{file.name}": file.read_bytes() for file in (DOCS / "schemas").glob("*/*.json")}
    differing = sorted(path for path in made.keys() | kept.keys() if made.get(path) != kept.get(path))
    assert differing == [], "run `python -m shared.schemas`"


def test_a_schema_that_is_not_made_any_more_is_deleted(tmp_path: Path) -> None:
    old, other = tmp_path / "schemas" / "callfold.old" / "v1.json", tmp_path / "schemas" / "README.md"
    old.parent.mkdir(parents=True)
    old.write_text("{}")
    other.write_text("#")
    write(tmp_path)
    assert (old.exists(), other.exists()) == (False, True)


@pytest.mark.parametrize("path", schemas())
def test_a_schema_is_valid_and_each_of_its_fields_is_described(path: str) -> None:
    schema = schemas()[path]
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == f"callfold:/docs/schemas/{path}"
    assert len(schema["description"].partition(" Readers ignore")[0]) > 10
    fields = [(name, field) for _, definition in objects(schema) for name, field in definition["properties"].items()]
    assert fields
    assert [name for name, field in fields if not field.get("description") and name not in {"reason", "x-death", "body"}] == []
    seconds = [field["description"] for name, field in fields if name.endswith("seconds")]
    assert all("seconds" in text for text in seconds)


def objects(schema: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    named = [("", schema), *schema.get("$defs", {}).items()]
    return [(name, definition) for name, definition in named if "properties" in definition]


def test_every_schema_has_an_example_which_it_takes() -> None:
    assert {schema_path(name) for name in EXAMPLES} == set(schemas())
    for name, example in EXAMPLES.items():
        validator(schema_path(name)).validate(example)


@pytest.mark.parametrize("name", ["callfold.call.completed.v1", "callfold.recording.stored.v1", "callfold.ops.spooling.v1"])
def test_an_unknown_field_is_open_to_readers_and_closed_to_writers(name: str) -> None:
    event = EXAMPLES[name]
    for more in ({**event, "newer": 1}, {**event, "data": {**event["data"], "newer": 1}}):
        validator(schema_path(name), is_closed=False).validate(more)
        assert not validator(schema_path(name)).is_valid(more)


@pytest.mark.parametrize(
    "change",
    [
        {"outcome": "lost"},
        {"outcome": None},
        {"talk_seconds": -1},
        {"talk_seconds": "30"},
        {"started_at": "2026-11-23 07:44:00"},
        {"started_at": "2026-13-23T07:44:00.000000Z"},
        {"revision": 0},
        {"agent": {}},
        {"other_legs": None},
        {"ignored": [{}]},
    ],
)
def test_a_wrong_value_of_a_record_is_refused(change: dict[str, Any]) -> None:
    event = EXAMPLES["callfold.call.completed.v1"]
    for is_closed in (True, False):
        assert not validator(path_of(event["type"]), is_closed=is_closed).is_valid({**event, "data": {**event["data"], **change}})


def test_a_text_that_may_get_further_values_is_open_to_readers_alone() -> None:
    schema = {"type": "object", "properties": {"reason": extensible(["a", "b"])}}
    assert Draft202012Validator(schema).is_valid({"reason": "c"})
    assert not Draft202012Validator(closed(schema)).is_valid({"reason": "c"})
    assert Draft202012Validator(closed(schema)).is_valid({"reason": "b"})


def test_a_dead_letter_has_the_headers_of_callfold_or_of_rabbitmq() -> None:
    known = EXAMPLES["dead-letter"]
    check = validator(DEAD_LETTER)
    check.validate({**known, "headers": {"x-death": []}})
    check.validate({"headers": {**known["headers"], "reason": "undecodable"}, "body": 7})
    for wrong in ({**known, "body": 7}, {**known, "headers": {}}, {**known, "headers": {**known["headers"], "reason": "tired"}}):
        assert not check.is_valid(wrong)


def test_the_asyncapi_document_names_each_schema_and_each_reference_of_it_exists() -> None:
    body = files()["asyncapi.json"]
    document = orjson.loads(body)
    targets = {str(target) for target in re.findall(r'"\$ref": "([^"]+)"', body.decode())}
    for target in targets:
        file, _, pointer = target.partition("#")
        found = orjson.loads((DOCS / file).read_bytes()) if file else document
        for part in filter(None, pointer.split("/")):
            found = found[part]
    named = {target.partition("#")[0].removeprefix("./schemas/") for target in targets if target.startswith("./")}
    assert named == set(schemas())
    used = {name for channel in document["channels"].values() for name in channel["messages"]}
    assert used == set(document["components"]["messages"])
