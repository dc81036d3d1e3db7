"""The programs of docs/examples that use the Python client: what they do survives kills, repeated events and servers that are away."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aio_pika
import orjson
import psycopg
import pytest
import pytest_asyncio
from aiohttp import web

from console.local.ports import free_port
from tests.helpers.history import call_event
from tests.helpers.history import leg as history_leg
from tests.helpers.pace import LIMIT_S
from tests.helpers.postgres import PostgreSQL
from tests.helpers.servers import ROOT, Servers, eventually

_NAMES = ("postgresql", "crm", "data_frame")


@pytest_asyncio.fixture
async def servers(rabbitmq_only: Servers) -> AsyncIterator[Servers]:
    yield rabbitmq_only
    async with await aio_pika.connect(rabbitmq_only.stack.amqp_url, timeout=LIMIT_S) as connection:
        channel = await connection.channel()
        for name in (f"example.{name}{end}" for name in _NAMES for end in ("", ".dead")):
            await channel.queue_delete(name)
            await channel.exchange_delete(name)


def _call(number: int, revision: int = 1, **record: Any) -> dict[str, Any]:  # noqa: ANN401
    agent = history_leg(number) | {"extension": "1001"}
    return call_event(number, revision=revision) | {
        "data": call_event(number, revision=revision)["data"] | {"agent": agent} | record
    }


async def _publish(servers: Servers, *events: dict[str, Any]) -> None:
    async with await aio_pika.connect(servers.stack.amqp_url, timeout=LIMIT_S) as connection:
        calls = await (await connection.channel()).get_exchange("calls")
        for event in events:
            key = f"call.{event['type'].split('.')[2]}.acme.{event['data']['outcome']}"
            message = aio_pika.Message(orjson.dumps(event), message_id=event["id"], delivery_mode=2)
            await calls.publish(message, key)


@asynccontextmanager
async def _running(servers: Servers, program: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run an example until the block ends; it has bound its queue when the block begins."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(ROOT / "docs" / "examples" / program), *arguments),
        env=os.environ | {"AMQP_URL": servers.stack.amqp_url, "PYTHONPATH": str(ROOT / "clients" / "python" / "src")},
        cwd=servers.directory,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert await _line(process) == "waiting for calls; Ctrl-C stops"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), LIMIT_S)
    assert line, (await process.communicate())[1].decode()
    return line.decode().strip()


async def _stopped(process: asyncio.subprocess.Process) -> tuple[int | None, str]:
    _, err = await asyncio.wait_for(process.communicate(), LIMIT_S)
    return process.returncode, err.decode()


async def _rows(url: str, statement: str) -> list[tuple[Any, ...]]:
    async with await psycopg.AsyncConnection.connect(url) as connection:
        return await (await connection.execute(statement.encode())).fetchall()


async def test_a_call_is_counted_once_in_postgresql_though_the_program_is_killed_in_the_middle(
    servers: Servers, postgres: PostgreSQL
) -> None:
    url = (await postgres.new_database()).replace("+psycopg", "")
    async with _running(servers, "to_postgresql.py", url) as process:
        async with await psycopg.AsyncConnection.connect(url) as held:
            await held.execute(b"lock table agent_totals in access exclusive mode")
            await _publish(servers, _call(1, talk_seconds=30.0))

            async def is_in_the_middle() -> bool:
                return bool(await _rows(url, "select 1 from pg_locks where not granted"))

            await eventually(is_in_the_middle)  # the id is written, and the totals wait for the lock
            process.kill()
            await process.wait()

        async def is_rolled_back() -> bool:
            return not await _rows(url, "select 1 from pg_locks where relation = 'agent_totals'::regclass")

        await eventually(is_rolled_back)
        assert await _rows(url, "select id from handled") == []
    later = [
        _call(1, 3, talk_seconds=50.0),
        _call(1, 2, talk_seconds=40.0),
        _call(2, talk_seconds=7.0),
        _call(2, talk_seconds=7.0),
    ]
    async with _running(servers, "to_postgresql.py", url) as process:
        await _publish(servers, *later)
        handled = [await _line(process) for _ in range(4)]
        assert {line.split()[0] for line in handled} == {"acme/1/1", "acme/1/3", "acme/1/2", "acme/2/1"}
        process.send_signal(signal.SIGTERM)
        assert await _stopped(process) == (0, "")
    assert await _rows(url, "select * from agent_totals") == [("1001", 2, 57.0)]
    assert await _rows(url, "select call, revision, talk_seconds from calls order by call") == [("1", 3, 50.0), ("2", 1, 7.0)]


class _Crm:
    """A CRM that answers as it is told, and notes what it took."""

    def __init__(self) -> None:
        self.answers: dict[str, list[int]] = {}
        self.requests: list[str] = []
        self.taken: list[tuple[str, int]] = []

    async def put(self, request: web.Request) -> web.StreamResponse:
        key = request.headers["Idempotency-Key"]
        self.requests.append(key)
        statuses = self.answers.get(key, [])
        status = statuses.pop(0) if statuses else 200
        if status == 0:
            assert request.transport is not None
            request.transport.abort()
        if status == 200:
            self.taken.append(
                (f"{request.match_info['source']}/{request.match_info['call']}", (await request.json())["revision"])
            )
        return web.Response(status=status, headers={"Retry-After": "0"})

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        app, port = web.Application(), free_port()
        app.router.add_put("/api/calls/{source}/{call}", self.put)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", port).start()
            yield f"http://127.0.0.1:{port}/api"
        finally:
            await runner.cleanup()


async def test_a_crm_gets_each_revision_in_order_through_its_errors_and_what_it_refuses_becomes_a_dead_letter(
    servers: Servers,
) -> None:
    crm = _Crm()
    crm.answers = {"acme/1/1": [503, 0, 429], "acme/2/1": [422] * 3}
    async with crm.running() as url:
        async with _running(servers, "to_crm.py", url, "--where", "talk_seconds > 5") as process:
            await _publish(
                servers, _call(1, talk_seconds=9), _call(1, 2, talk_seconds=9), _call(1, talk_seconds=9), _call(3, talk_seconds=1)
            )
            await _publish(servers, _call(2, talk_seconds=9))
            assert [await _line(process) for _ in range(2)] == ["acme/1/1", "acme/1/2"]
            code, err = await _stopped(process)
            assert (code, err.splitlines()[-1]) == (1, "The CRM refused acme/2/1 with status 422.")
        for _ in range(2):  # as a supervisor would
            async with _running(servers, "to_crm.py", url) as process:
                assert (await _stopped(process))[0] == 1
        await _publish(servers, _call(1, talk_seconds=9), _call(4, talk_seconds=9))
        async with _running(servers, "to_crm.py", url, "--limit", "1") as process:
            assert await _line(process) == "acme/4/1"
            assert await _stopped(process) == (0, "")
    assert crm.taken == [("acme/1", 1), ("acme/1", 2), ("acme/4", 1)]
    assert crm.requests == ["acme/1/1"] * 4 + ["acme/1/2"] + ["acme/2/1"] * 3 + ["acme/4/1"]
    async with servers.queue("example.crm.dead") as dead:
        letter = await dead.get(timeout=LIMIT_S)
        await letter.ack()
        assert orjson.loads(letter.body)["id"] == "acme/2/1"


async def test_a_data_frame_has_one_row_for_each_call_though_lines_are_repeated_or_cut_off(servers: Servers) -> None:
    path = servers.directory / "calls.csv"
    async with _running(servers, "to_data_frame.py", "feed", str(path), "--limit", "2") as process:
        await _publish(servers, _call(1, talk_seconds=9.5), _call(2, talk_seconds=7.0))
        assert await _stopped(process) == (0, "")
    written = path.read_bytes()
    path.write_bytes(written + written.splitlines()[-1] + b"\r\n" + written.splitlines()[1][:-12])  # repeated, then cut off
    async with _running(servers, "to_data_frame.py", "feed", str(path), "--limit", "1") as process:
        await _publish(servers, _call(2, 2, talk_seconds=8.0))
        assert await _stopped(process) == (0, "")
    assert _talk(path) == {("acme", "1"): "9.5", ("acme", "2"): "8.0"}


def _talk(path: Path) -> dict[tuple[str, str], str]:
    rows: Iterable[Any] = _example("to_data_frame").latest(path)
    return {(row["source"], row["call"]): row["talk_seconds"] for row in rows}


def _example(name: str) -> Any:  # noqa: ANN401
    namespace: dict[str, Any] = {"__name__": name}
    path = ROOT / "docs" / "examples" / f"{name}.py"
    exec(compile(path.read_text("utf-8"), str(path), "exec"), namespace)  # noqa: S102 - of this repository
    return type("Example", (), namespace)


@pytest.mark.parametrize("program", ["to_postgresql", "to_crm", "to_data_frame"])
def test_the_help_of_an_example_says_how_it_is_called(
    program: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [f"{program}.py", "--help"])
    with pytest.raises(SystemExit, match="0"):
        _example(program).main()
    assert f"python docs/examples/{program}.py" in capsys.readouterr().out


def test_a_data_frame_without_pandas_is_said_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    monkeypatch.setattr(sys, "argv", ["to_data_frame.py", "show", str(tmp_path / "calls.csv")])
    with pytest.raises(SystemExit, match="`show` needs pandas"):
        _example("to_data_frame").main()
