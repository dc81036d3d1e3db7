"""What JavaScript programs read of the schemas: the official parser of AsyncAPI, Ajv, and the types of the TypeScript client."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from console.local.ports import free_port
from tests.helpers.node import CLIENT, PROGRAMS, run
from tests.helpers.recordings import Pbx, job, sources_of, submit
from tests.helpers.servers import ROOT, Servers, call_back, lines_of, next_events

_SCHEMAS = ROOT / "docs" / "schemas"
_WARNING = 1  # 0 is an error; 2 and 3 are remarks, such as that there is a later version of AsyncAPI


async def test_the_official_parser_accepts_the_asyncapi_document() -> None:
    code, out, err = await run("node", str(PROGRAMS / "validate_asyncapi.mjs"), "docs/asyncapi.json")
    assert code == 0, err
    *diagnostics, document = [json.loads(line) for line in out.splitlines()]
    assert [each for each in diagnostics if each["severity"] <= _WARNING] == []
    assert document["messages"] > 20


async def test_the_official_parser_sees_a_fault(tmp_path: Path) -> None:
    document = json.loads((ROOT / "docs" / "asyncapi.json").read_text("utf-8"))
    document["operations"]["publishCallCompleted"]["channel"]["$ref"] = "#/channels/none"
    (tmp_path / "asyncapi.json").write_text(json.dumps(document), "utf-8")
    _, out, _ = await run("node", str(PROGRAMS / "validate_asyncapi.mjs"), str(tmp_path / "asyncapi.json"))
    assert any(json.loads(line).get("severity") == 0 for line in out.splitlines())


async def test_ajv_accepts_every_schema_and_what_a_running_system_publishes(servers: Servers, pbx: Pbx) -> None:
    port = free_port()
    async with servers.fleet(CALLFOLD_SOURCES=sources_of(servers, pbx)) as fleet, servers.subscribed() as queue:
        fleet.add("ingress", "ingress", {"CALLFOLD_INGRESS_PORT": str(port)})
        fleet.add("worker", "worker", {})
        await fleet.start_all()
        await submit(servers, job().encode(), job("8", guid=None).encode())
        for number in range(600, 605):
            await call_back(port, [f"{line}&token=x" for line in lines_of(number)], source="acme")
        events = [event.body for event in await next_events(queue, 6)]
    paths = sorted(str(path.relative_to(_SCHEMAS)) for path in _SCHEMAS.glob("*/v*.json"))
    rows: list[dict[str, Any]] = [{"schema": path, "value": None} for path in paths]
    rows += [{"schema": event["dataschema"].partition("docs/schemas/")[2], "value": event} for event in events]
    rows += [{**row, "value": {**row["value"], "data": {}}} for row in rows[len(paths) :]]
    given = "".join(json.dumps(row) + "\n" for row in rows)
    code, out, err = await run("node", str(PROGRAMS / "validate.mjs"), str(_SCHEMAS), given=given)
    assert code == 0, err
    errors = [json.loads(line) for line in out.splitlines()]
    assert len(paths) > 20
    assert all(errors[: len(paths)]), "null is no event"
    assert errors[len(paths) : len(paths) + len(events)] == [[]] * len(events)
    assert all(errors[len(paths) + len(events) :])


async def test_the_types_of_the_client_are_those_of_the_schemas(tmp_path: Path) -> None:
    code, _, err = await run("node", "scripts/generate-types.mjs", str(tmp_path), cwd=CLIENT)
    assert code == 0, err
    for name in ("schemas.ts", "fields.ts"):
        made = (tmp_path / name).read_text("utf-8")
        assert made == (CLIENT / "src" / name).read_text("utf-8"), "run `npm run types` in clients/typescript"


@pytest.mark.parametrize("folder", [CLIENT, ROOT / "tests" / "clients"], ids=["client", "tests"])
def test_lock_files_name_no_registry_and_only_packages_with_permissive_licences(folder: Path) -> None:
    packages = json.loads((folder / "package-lock.json").read_text("utf-8"))["packages"]
    packages.pop("")
    assert not [name for name, package in packages.items() if "resolved" in package or "integrity" not in package]
    allowed = re.compile(r"\(?(0BSD|Apache-2\.0|BSD-[23]-Clause|ISC|MIT|Python-2\.0|PSF-2\.0|Unlicense)( OR .*)?\)?")
    licences = {name: package.get("license") or _licence(folder / name) for name, package in packages.items()}
    assert {name: licence for name, licence in licences.items() if not allowed.fullmatch(str(licence))} == {}


def _licence(package: Path) -> object:
    """Read the licence of a package whose entry in the lock file lacks it: an older form, in its own file."""
    described = json.loads((package / "package.json").read_text("utf-8"))
    old = described.get("licenses", [{}])[0]
    return described.get("license", old.get("type") if isinstance(old, dict) else old)
