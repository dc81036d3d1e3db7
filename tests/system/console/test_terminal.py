"""What commands print of callbacks on a terminal: text, whatever a callback carries."""

from __future__ import annotations

import json
import re
from urllib.parse import unquote

import aio_pika
import pytest
from aio_pika.abc import HeadersType

from console.local.ports import free_port
from tests.helpers.servers import VENDOR_LINES, Servers, call_back, callfold, eventually

# A title and a cleared screen for the terminal, a line that looks like one of ours, and control sequences in one character (C1).
_EVIL = "%1B]0;x%07%1B[2J%0A2026 acme/999 answered%C2%9B2J%C2%85%E2%80%AE"
_SHOWN = "[U+001B]]0;x[U+0007][U+001B][2J[U+000A]2026 acme/999 answered[U+009B]2J[U+0085][U+202E]"
_HARMFUL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]|^2026 acme", re.MULTILINE)


async def _bury(servers: Servers, text: str) -> None:
    async with servers.queue("callbacks.dead") as queue:
        headers: HeadersType = {"reason": text, "detail": text, "first_seen": "2026-11-23T07:44:00.000000Z"}
        message = aio_pika.Message(text.encode(), headers=headers, message_id="evil-0123456789", delivery_mode=2)
        await queue.channel.default_exchange.publish(message, queue.name)


@pytest.mark.parametrize("text", [unquote(_EVIL)])
async def test_no_value_of_a_callback_moves_the_terminal_or_forges_a_line(servers: Servers, text: str) -> None:
    port, settings = free_port(), servers.environment()
    async with servers.fleet() as fleet:
        await fleet.add("ingress", "ingress", {"CALLFOLD_INGRESS_PORT": str(port)}).start()
        await fleet.add("worker", "worker", {}).start()
        await call_back(port, [f"{line}&CallerID={_EVIL}&Odd{_EVIL}={_EVIL}" for line in VENDOR_LINES])

        async def is_folded() -> bool:
            return "answered" in (await callfold("calls", "--json", **settings))[1]

        await eventually(is_folded)
        await _bury(servers, text)
        printed = {}
        for command in (
            "calls",
            "show default 513",
            "dead-letters list",
            "dead-letters show evil",
            "tail # --since 1h --limit 1",
        ):
            code, printed[command], _ = await callfold(*command.split(), **settings)
            assert code == 0, command
        _, as_json, _ = await callfold("calls", "--json", **settings)
        _, as_csv, _ = await callfold("calls", "--csv", **settings)
    assert [command for command, out in printed.items() if _HARMFUL.search(out)] == []
    for command in ("calls", "dead-letters list", "dead-letters show evil"):
        assert _SHOWN in printed[command], command
    assert printed["calls"].count("\n") == 1
    assert json.loads(as_json)["number"] == text, "a program reads what was told"
    assert text in as_csv
