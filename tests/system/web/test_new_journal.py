"""A journal that an operator deleted, and that was declared anew: offsets mean other events from then on, and nobody is left waiting."""

from __future__ import annotations

import aio_pika
import aiohttp

from tests.helpers.console import AUTHORIZED, KEY, World, read_events, world
from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import Servers, eventually, lines_of


async def _call(here: World, number: int) -> str:
    await here.call_back([line.replace("IsCallRecorded=1", "IsCallRecorded=") for line in lines_of(number)], "acme")
    return f"acme/{number}/1"


async def test_who_watches_sees_what_comes_into_a_journal_that_was_made_anew(servers: Servers) -> None:
    roles = ("ingress", "worker", "console")
    async with (
        world(servers, "[sources.acme]\n", *roles, CALLFOLD_CONSOLE_KEY=KEY) as here,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None, sock_read=LIMIT_S)) as session,
        session.get(f"{here.consoles['console']}/events?topic=call.%23", headers=AUTHORIZED) as watched,
    ):
        events = read_events(watched)
        for number in range(10, 15):
            wanted = await _call(here, number)
            assert (await anext(events)).data["id"] == wanted
        async with servers.queue("calls.journal") as queue:
            await queue.delete(if_unused=False, if_empty=False)
        await eventually(lambda: _is_there(servers))
        seen: list[str] = []
        for number in range(20, 23):
            wanted = await _call(here, number)
            while wanted not in seen:
                seen.append((await anext(events)).data["id"])
        assert seen == ["acme/20/1", "acme/21/1", "acme/22/1"]
        sent = AUTHORIZED | {"Last-Event-ID": "1000"}
        async with session.get(f"{here.consoles['console']}/events?topic=call.%23", headers=sent) as again:
            got = [(await anext(read_events(again))).data["id"]]
        assert got == seen[:1]


async def _is_there(servers: Servers) -> bool:
    try:
        async with servers.queue("calls.journal"):
            return True
    except aio_pika.exceptions.ChannelNotFoundEntity:
        return False
