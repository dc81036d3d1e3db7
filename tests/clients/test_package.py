"""The npm package: what it contains, that it works where nothing else is installed, and that the examples of its README run."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.helpers.node import CLIENT, node, run
from tests.helpers.servers import ROOT, Servers, eventually
from tests.helpers.subscribers_broker import event, subscribers_broker

_BLOCK = re.compile(r"^```(js|ts)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_BLOCKS = _BLOCK.findall((CLIENT / "README.md").read_text("utf-8"))
_COMPILER = {"strict": True, "noEmit": True, "allowJs": True, "checkJs": True, "skipLibCheck": False, "target": "es2022"}
_MODULES = {"module": "nodenext", "types": ["node"], "typeRoots": [str(CLIENT / "node_modules" / "@types")]}
_CONFIGURATION = {"compilerOptions": _COMPILER | _MODULES, "include": ["*.ts", "*.mjs"]}


@pytest_asyncio.fixture(scope="module")
async def installed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Path]:
    """Pack the package and install it into an empty folder."""
    folder = tmp_path_factory.mktemp("installed")
    code, out, err = await run("npm", "pack", "--ignore-scripts", "--pack-destination", str(folder), cwd=CLIENT)
    assert code == 0, err
    (folder / "package.json").write_text('{"private": true}', "utf-8")
    cache = str(ROOT / "build" / "npm")
    command = ("npm", "install", "--prefer-offline", "--no-audit", "--no-fund", "--cache", cache, f"./{out.split()[-1]}")
    code, _, err = await run(*command, cwd=folder)
    assert code == 0, err
    yield folder


@pytest.fixture(scope="module")
def examples(installed: Path) -> Path:
    """Write the examples of the README where the package is installed."""
    for number, (kind, text) in enumerate(_BLOCKS):
        (installed / f"example-{number}.{'ts' if kind == 'ts' else 'mjs'}").write_text(text, "utf-8")
    (installed / "tsconfig.json").write_text(json.dumps(_CONFIGURATION), "utf-8")
    (installed / "package.json").write_text('{"private": true, "type": "module"}', "utf-8")
    return installed


async def test_the_tests_of_the_package_itself_pass() -> None:
    code, out, err = await run("npm", "test", cwd=CLIENT)
    assert code == 0, out + err
    assert re.search(r"^# pass [1-9]\d+$", out, re.MULTILINE)
    assert re.search(r"^# skipped 0$", out, re.MULTILINE)


async def test_the_package_has_the_code_its_types_and_the_licence_and_depends_on_amqplib_alone(installed: Path) -> None:
    package = installed / "node_modules" / "callfold-client"
    files = {str(path.relative_to(package)) for path in package.rglob("*") if path.is_file()}
    modules = {path.stem for path in (CLIENT / "src").glob("*.ts")}
    compiled = {f"dist/{module}.{suffix}" for module in modules for suffix in ("js", "js.map", "d.ts", "d.ts.map")}
    assert files == {"package.json", "README.md", "LICENSE"} | compiled | {f"src/{module}.ts" for module in modules}
    described = json.loads((package / "package.json").read_text("utf-8"))
    assert set(described["dependencies"]) == {"amqplib"}
    assert {path.name for path in (installed / "node_modules").iterdir() if not path.name.startswith(".")} == {
        "amqplib",
        package.name,
    }


async def test_it_can_be_imported_where_nothing_else_is_installed(installed: Path) -> None:
    (installed / "program.mjs").write_text(
        'console.log(JSON.stringify(Object.keys(await import("callfold-client")).sort()))', "utf-8"
    )
    async with node(installed / "program.mjs", cwd=installed) as program:
        assert await program.end() == 0
    (names,) = program.lines
    assert {"subscribe", "fetchRecording", "parseEvent", "Where"} <= {*names}


async def test_the_examples_of_the_readme_are_accepted_by_the_compiler(examples: Path) -> None:
    assert len(_BLOCKS) >= 5
    code, out, err = await run("node", str(CLIENT / "node_modules" / ".bin" / "tsc"), "-p", str(examples))
    assert code == 0, out + err


async def test_the_examples_of_the_readme_do_what_they_show(examples: Path, rabbitmq_only: Servers) -> None:
    queues = ("billing.calls", "reports.calls")
    async with subscribers_broker(rabbitmq_only, *queues) as broker:
        await broker.publish(event(1))
        urls = {"AMQP_URL": broker.url}
        async with node(_example(examples, "billing.calls"), cwd=examples, **urls) as program:
            await eventually(lambda: broker.has_consumer("billing.calls"))
            await broker.publish(event(2))
            await program.until(len)
            assert (await program.stop(), program.lines) == (0, ["acme/2/1 answered 1.25"])
        async with node(_example(examples, "reports.calls"), cwd=examples, **urls) as program:
            await program.until(lambda lines: "earlier acme/2/1" in lines)
            await broker.publish(event(3))
            await program.until(lambda lines: lines == ["earlier acme/1/1", "earlier acme/2/1", "now acme/3/1"])
        async with node(_example(examples, "new Where("), cwd=examples, **urls) as program:
            assert (await program.end(), program.lines) == (0, [True])


async def test_the_example_of_the_page_for_subscribers_prints_calls_until_it_is_stopped(
    examples: Path, rabbitmq_only: Servers
) -> None:
    page = (ROOT / "docs" / "subscribing.md").read_text("utf-8")
    (text,) = (block for kind, block in _BLOCK.findall(page) if kind == "js" and "import" in block)
    (examples / "page.mjs").write_text(text, "utf-8")
    async with (
        subscribers_broker(rabbitmq_only, "billing.calls") as broker,
        node(examples / "page.mjs", cwd=examples, CALLFOLD_AMQP_URL=broker.url) as program,
    ):
        await eventually(lambda: broker.has_consumer("billing.calls"))
        await broker.publish(event(1), event(2, revision=2))
        await program.until(lambda lines: len(lines) == 2)
        assert (await program.stop(), program.lines) == (0, ["acme 1 1 answered 1.25", "acme 2 2 answered 1.25"])


def _example(examples: Path, text: str) -> Path:
    return next(path for path in sorted(examples.glob("*.mjs")) if text in path.read_text("utf-8"))
