"""`callfold schema` and `GET /schemas` give out the schemas, whatever name they are asked for by."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from typer.testing import CliRunner

from console.cli.app import app
from console.cli.schema import _names
from console.web.models import SchemaList
from console.web.schemas_api import get_schema, list_schemas
from shared.schemas.catalog import schemas

DOCS = Path(__file__).parents[3] / "docs" / "schemas"
PATH = "callfold.call.completed/v1.json"


def output(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["schema", *arguments], catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


@pytest.mark.parametrize(
    "name",
    [
        "callfold.call.completed",
        "callfold.call.completed.v1",
        "callfold.call.completed/v1",
        PATH,
        f"callfold:/docs/schemas/{PATH}",
    ],
)
def test_a_schema_is_printed_by_every_name_that_it_has(name: str) -> None:
    assert output(name).encode() == (DOCS / PATH).read_bytes()


def test_every_schema_is_listed_and_completed() -> None:
    lines = output().splitlines()
    assert [line.split(maxsplit=1)[0] for line in lines] == sorted(schemas())
    rows = [orjson.loads(line) for line in output("--json").splitlines()]
    assert {row["path"]: row["id"] for row in rows} == {path: schema["$id"] for path, schema in schemas().items()}
    assert {f"{name}/v1.json" for name in _names()} == set(schemas())


def test_json_is_one_line() -> None:
    (line,) = output("--json", "raw-message").splitlines()
    assert orjson.loads(line) == schemas()["raw-message/v1.json"]


def test_an_unknown_schema_is_an_error_that_says_where_the_names_are() -> None:
    with pytest.raises(Exception, match=r'Unknown schema "callfold.nothing".*callfold schema'):
        output("callfold.nothing")


async def answer(handler: Callable[[web.Request], object], path: str) -> web.Response:
    name, _, file = path.partition("/")
    request = make_mocked_request("GET", "/schemas", match_info={"name": name, "file": file})
    response = await handler(request)  # type: ignore[misc]
    assert isinstance(response, web.Response)
    return response


async def test_the_console_serves_the_file_of_the_repository() -> None:
    found, listed, unknown = [await answer(*ask) for ask in ((get_schema, PATH), (list_schemas, ""), (get_schema, "x/v1.json"))]
    assert (found.status, found.content_type, found.body) == (200, "application/schema+json", (DOCS / PATH).read_bytes())
    assert isinstance(listed.body, bytes)
    assert {row.path for row in SchemaList.model_validate_json(listed.body).schemas} == set(schemas())
    assert unknown.status == 404
