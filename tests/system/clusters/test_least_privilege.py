"""Every process works with the permissions of its own user and declares nothing; a subscriber gets the events of its source alone."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack, nullcontext
from pathlib import Path

import aio_pika
import pytest
from aiormq.exceptions import ChannelAccessRefused

from console.local.ports import free_port
from shared.amqp.publisher import Message
from shared.amqp.roles import ROLES, USER_PREFIX
from shared.amqp.single_publish import publish_alone
from tests.helpers.forwarding import attempts_of, bound, table
from tests.helpers.pace import LIMIT_S
from tests.helpers.rabbitmq_cluster import run_tool
from tests.helpers.recording_site import Site
from tests.helpers.recordings import Pbx
from tests.helpers.servers import VENDOR_LINES, Servers, call_back, callfold, next_events

SUBSCRIBER, OPERATOR = "billing", "noc"
FOREIGN = ("#", "call.#", "*.*.acme.#", "call.*.other.#", "call.#.acme.answered", "call.*.*.answered", "recording.*.*")
OWN = ("call.*.acme.#", "call.completed.acme.answered", "call.amended.acme.*", "recording.*.acme", "recording.stored.acme")

_NOT_PERMITTED = "not known: the user of CALLFOLD_AMQP_URL may not read it. Run `callfold doctor` as callfold-console"


async def _users(servers: Servers, site: Site) -> dict[str, str]:
    """Create the users as an operator would; returns the URL of each."""
    passwords = servers.directory / "passwords"
    code, out, err = await site.callfold(
        "broker", "definitions", "--users", str(passwords), "--subscriber", f"{SUBSCRIBER}=acme", "--operator", OPERATOR
    )
    assert code == 0, err
    assert not any(path.read_text().strip() in out for path in passwords.iterdir())
    path = servers.directory / "definitions.json"
    path.write_text(out, "utf-8")
    await run_tool(servers.stack.rabbitmq.environment, "rabbitmqctl", "import_definitions", str(path))
    port = servers.stack.rabbitmq.port
    return {
        name: f"amqp://{USER_PREFIX}{name}:{Path(passwords / name).read_text().strip()}@127.0.0.1:{port}/"
        for name in (*ROLES, SUBSCRIBER, OPERATOR)
    }


async def test_each_process_and_subscriber_has_the_permissions_it_needs_and_no_others(servers: Servers, pbx: Pbx) -> None:
    site = Site(servers, pbx, "acme")
    urls = await _users(servers, site)
    ingress_port = free_port()
    restricted = {
        **site.settings,
        "CALLFOLD_AMQP_DECLARE": "false",
        "CALLFOLD_INGRESS_PORT": str(ingress_port),
        "CALLFOLD_CONSOLE_PORT": str(free_port()),
        "CALLFOLD_HISTORY_URL": f"sqlite:///{servers.directory / 'history.sqlite'}",
    }
    endpoints = servers.directory / "endpoints.toml"
    endpoints.write_text(table("crm", "http://127.0.0.1:1/hook", source="acme"), "utf-8")
    restricted["CALLFOLD_ENDPOINTS"] = str(endpoints)
    code, out, err = await callfold("broker", "declare", **{**restricted, "CALLFOLD_AMQP_URL": urls["setup"]})
    assert (code, "callbacks.fold" in out) == (0, True), err
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(await aio_pika.connect(urls[SUBSCRIBER], timeout=LIMIT_S))
        events = await _subscribe(connection)
        fleet = await stack.enter_async_context(servers.fleet(**restricted))
        for role, module in (
            ("ingress", "ingress"),
            ("worker", "worker"),
            ("console", "console"),
            ("history", "console.history"),
            ("forward", "worker.forwarding"),
        ):
            await fleet.add(role, module, {"CALLFOLD_AMQP_URL": urls[role]}).start()
        await bound(servers, endpoints.read_text("utf-8"))
        lines = [f"{line}&token=x" for line in VENDOR_LINES]
        assert await call_back(ingress_port, lines, source="acme") == [200] * len(lines)
        found = await next_events(events, 3)
        assert sorted(event.routing_key for event in found) == [
            "call.completed.acme.answered",
            *["recording.stored.acme"] * 2,
        ]
        assert site.files()
        for command in ("calls", "dead-letters list", "doctor"):
            code, out, err = await callfold(*command.split(), **{**restricted, "CALLFOLD_AMQP_URL": urls["console"]})
            assert code == 0, (command, out, err)
        code, out, _ = await callfold("doctor", "--json", **{**restricted, "CALLFOLD_AMQP_URL": urls["worker"]})
        checks = {row["check"]: row["detail"] for row in map(json.loads, out.splitlines())}
        assert (code, checks["dead letters"], checks["refusals"]) == (0, _NOT_PERMITTED, _NOT_PERMITTED), out
        await attempts_of(servers, "crm", 1)
        for process in fleet.processes:
            log = process.log_path.read_text()
            assert "ACCESS_REFUSED" not in log, log[-2000:]
            assert "broker_connected" in log
    await _is_refused_everything_else(urls)


async def _subscribe(connection: aio_pika.abc.AbstractConnection) -> aio_pika.abc.AbstractQueue:
    channel = await connection.channel()
    queue = await channel.declare_queue(f"{SUBSCRIBER}.events", durable=True, exclusive=True)
    for pattern in OWN:
        await queue.bind("calls", pattern)
    return queue


async def _is_refused_everything_else(urls: dict[str, str]) -> None:
    async with await aio_pika.connect(urls[SUBSCRIBER], timeout=LIMIT_S) as connection:
        for pattern in FOREIGN:
            channel = await connection.channel()
            queue = await channel.declare_queue(f"{SUBSCRIBER}.more", exclusive=True, auto_delete=True)
            with pytest.raises(ChannelAccessRefused):
                await queue.bind("calls", pattern)
        for name in ("calls.journal", "callbacks.fold", "callbacks.dead"):
            channel = await connection.channel()
            with pytest.raises(ChannelAccessRefused):
                await (await channel.get_queue(name, ensure=False)).get(fail=False)
        channel = await connection.channel()
        with pytest.raises(ChannelAccessRefused):
            await channel.declare_queue("mine", exclusive=True)
    for name, exchange, is_permitted in ((SUBSCRIBER, "ops", False), (OPERATOR, "calls", False), (OPERATOR, "ops", True)):
        async with await aio_pika.connect(urls[name], timeout=LIMIT_S) as connection:
            channel = await connection.channel()
            queue = await channel.declare_queue(f"{name}.more", exclusive=True, auto_delete=True)
            with nullcontext() if is_permitted else pytest.raises(ChannelAccessRefused):
                await queue.bind(exchange, "#")
    for role in ("ingress", "worker"):
        await publish_alone([urls[role]], role, Message("ops", "ops.test", b"{}", "test"), timeout_s=LIMIT_S)
    for role in ("ingress", "worker", "console", "history"):
        async with await aio_pika.connect(urls[role], timeout=LIMIT_S) as connection:
            channel = await connection.channel()
            with pytest.raises(ChannelAccessRefused):
                await channel.declare_queue("callbacks.fold", durable=True)
