"""Every process works with the permissions of its own user and declares nothing; a subscriber gets the events of its source alone."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, nullcontext
from pathlib import Path

import aio_pika
import pytest
from aiormq.exceptions import ChannelAccessRefused

from callfold_client import SubscriptionError, subscribe
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

SUBSCRIBER, EVERYTHING, OPERATOR = "billing", "stats", "noc"
FOREIGN = ("#", "call.#", "*.*.acme.#", "call.*.other.#", "call.#.acme.answered", "call.*.*.answered", "recording.*.*")
OWN = ("call.*.acme.#", "call.completed.acme.answered", "call.amended.acme.*", "recording.*.acme", "recording.stored.acme")

_NOT_PERMITTED = "not known: the user of CALLFOLD_AMQP_URL may not read it. Run `callfold doctor` as callfold-console"


async def _users(servers: Servers, site: Site) -> dict[str, str]:
    """Create the users as an operator would; returns the URL of each."""
    passwords = servers.directory / "passwords"
    subscribers = ("--subscriber", f"{SUBSCRIBER}=acme", "--subscriber", f"{EVERYTHING}=*")
    code, out, err = await site.callfold("broker", "definitions", "--users", str(passwords), *subscribers, "--operator", OPERATOR)
    assert code == 0, err
    assert not any(path.read_text().strip() in out for path in passwords.iterdir())
    path = servers.directory / "definitions.json"
    path.write_text(out, "utf-8")
    await run_tool(servers.stack.rabbitmq.environment, "rabbitmqctl", "import_definitions", str(path))
    port = servers.stack.rabbitmq.port
    return {
        name: f"amqp://{USER_PREFIX}{name}:{Path(passwords / name).read_text().strip()}@127.0.0.1:{port}/"
        for name in (*ROLES, SUBSCRIBER, EVERYTHING, OPERATOR)
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
    for name in (SUBSCRIBER, EVERYTHING):
        await _cannot_touch_callfold(urls[name], name)
    await _use_the_client(urls)
    for name in (SUBSCRIBER, EVERYTHING):
        await _delete_own(urls[name], name)


_Attempt = Callable[[aio_pika.abc.AbstractChannel, aio_pika.abc.AbstractQueue], Awaitable[object]]


async def _publish(channel: aio_pika.abc.AbstractChannel, exchange: str, routing_key: str) -> None:
    target = await channel.get_exchange(exchange, ensure=False) if exchange else channel.default_exchange
    await target.publish(aio_pika.Message(b"{}"), routing_key, timeout=LIMIT_S)


async def _route_to(channel: aio_pika.abc.AbstractChannel, own: aio_pika.abc.AbstractQueue, **arguments: str) -> None:
    """Declare an exchange and a queue whose messages would go on to an exchange of Callfold."""
    if "alternate" in arguments:
        more = {"alternate-exchange": arguments["alternate"]}
        await channel.declare_exchange(f"{own.name}.x", auto_delete=True, arguments=dict(more))
    else:
        more = {"x-dead-letter-exchange": arguments["dead"]}
        await channel.declare_queue(f"{own.name}.x", exclusive=True, arguments=dict(more))


async def _bind_exchanges(channel: aio_pika.abc.AbstractChannel, own: aio_pika.abc.AbstractQueue) -> None:
    source = await channel.declare_exchange(f"{own.name}.from", auto_delete=True)
    await (await channel.get_exchange("calls", ensure=False)).bind(source)


_ATTEMPTS: Mapping[str, _Attempt] = {
    "bind callbacks": lambda _, own: own.bind("callbacks", "#"),
    "bind a queue of Callfold": lambda channel, _: _queue(channel, "callbacks.fold", "bind"),
    "unbind the journal": lambda channel, _: _queue(channel, "calls.journal", "unbind"),
    "purge the fold": lambda channel, _: _queue(channel, "callbacks.fold", "purge"),
    "delete the fold": lambda channel, _: channel.queue_delete("callbacks.fold"),
    "delete the journal": lambda channel, _: channel.queue_delete("calls.journal"),
    "delete calls": lambda channel, _: channel.exchange_delete("calls"),
    "publish an event": lambda channel, _: _publish(channel, "calls", "attempt"),
    "publish to a queue": lambda channel, _: _publish(channel, "", "callbacks.fold"),
    "dead-letter to callbacks": lambda channel, own: _route_to(channel, own, dead="callbacks"),
    "pass on to calls": lambda channel, own: _route_to(channel, own, alternate="calls"),
    "bind calls to an exchange": _bind_exchanges,
    "read the fold": lambda channel, _: _queue(channel, "callbacks.fold", "get"),
    "read another subscriber": lambda channel, _: _queue(channel, "other.calls", "get"),
}


async def _queue(channel: aio_pika.abc.AbstractChannel, name: str, act: str) -> None:
    queue = await channel.get_queue(name, ensure=False)
    match act:
        case "bind":
            await queue.bind("calls", "call.*.acme.#")
        case "unbind":
            await queue.unbind("calls", "#")
        case "purge":
            await queue.purge()
        case "get":
            await queue.get(fail=False, timeout=LIMIT_S)


async def _cannot_touch_callfold(url: str, name: str) -> None:
    async with await aio_pika.connect(url, timeout=LIMIT_S) as connection:
        for number, (attempt, act) in enumerate(_ATTEMPTS.items()):
            channel = await connection.channel()
            own = await channel.declare_queue(f"{name}.attempt-{number}", exclusive=True, auto_delete=True)
            try:
                await act(channel, own)
            except ChannelAccessRefused:
                continue
            pytest.fail(f"{name} may {attempt}")


async def _use_the_client(urls: dict[str, str]) -> None:
    """The Python client works with these rights; only a subscriber to all sources can read the journal."""
    async with subscribe(urls[SUBSCRIBER], queue=f"{SUBSCRIBER}.calls", filter=("call.*.acme.#", "recording.*.acme")):
        pass
    with pytest.raises(SubscriptionError):
        async with subscribe(urls[SUBSCRIBER], queue=f"{SUBSCRIBER}.more", filter="call.#"):
            pass
    async with subscribe(urls[EVERYTHING], queue=f"{EVERYTHING}.calls", filter="#"):
        pass
    async with await aio_pika.connect(urls[EVERYTHING], timeout=LIMIT_S) as connection:
        channel = await connection.channel()
        await channel.set_qos(1)
        journal = await channel.get_queue("calls.journal", ensure=False)
        await journal.consume(_nothing, arguments={"x-stream-offset": "next"})


async def _nothing(_: aio_pika.abc.AbstractIncomingMessage) -> None:
    """Leave a message as it is."""


async def _delete_own(url: str, name: str) -> None:
    """A subscriber may delete what it has declared."""
    async with await aio_pika.connect(url, timeout=LIMIT_S) as connection:
        for queue in (f"{name}.calls", f"{name}.more"):
            channel = await connection.channel()
            await channel.queue_delete(queue)
            await channel.queue_delete(f"{queue}.dead")
            await channel.exchange_delete(f"{queue}.dead")


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
