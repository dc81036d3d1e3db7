"""A process that posts forms with a wrong token at full speed: `python -m tests.helpers.form_attack PORT SECONDS CONNECTIONS`.

It prints how many forms it has sent. Some have the token in the query, some in the body, some are larger than a form may be.
"""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import suppress

from tests.helpers.raw_http import post

_MIB = 1 << 20
_FORM = 64 * 1024
_CHUNKED = "Transfer-Encoding: chunked"
_PATH = "/callbacks/acme"


def requests() -> list[bytes]:
    """Write one form of each kind."""
    return [
        post(f"{_PATH}?token=wrong", body=b"\xfc" * _MIB),
        post(_PATH, body=b"\xfc" * _MIB),
        post(_PATH, body=(b"%41&" * _FORM)[: _FORM - 12] + b"&token=wrong"),
        post(_PATH, body=(b"%74oken=wrong&" + b"\xfc=&" * _FORM)[:_FORM]),
        post(_PATH, _CHUNKED, body=b"100000\r\n" + b"a" * _MIB + b"\r\n0\r\n\r\n"),
    ]


async def attack(port: int, seconds: float, connections: int) -> int:
    """Send forms over so many connections side by side; returns how many were sent."""
    forms, end = requests(), time.monotonic() + seconds
    sent = await asyncio.gather(*(_attack_one(port, forms[number % len(forms)], end) for number in range(connections)))
    return sum(sent)


async def _attack_one(port: int, form: bytes, end: float) -> int:
    sent = 0
    while time.monotonic() < end:
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(max(0.1, end - time.monotonic())):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                try:
                    writer.write(form)
                    sent += 1
                    await reader.read(1 << 16)
                finally:
                    writer.transport.abort()
    return sent


if __name__ == "__main__":
    sys.stdout.write(f"{asyncio.run(attack(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])))}\n")
