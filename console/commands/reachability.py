"""Whether another machine can be reached from this one: does its name resolve, does somebody listen there?"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

_LOOK_UP_S = 5
_CONNECT_S = 3


async def look_up(host: str) -> list[str]:
    """List the addresses of a name.

    Raises:
        OSError: it does not resolve, or (TimeoutError) not in time.
    """
    async with asyncio.timeout(_LOOK_UP_S):
        answers = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return sorted({str(answer[4][0]) for answer in answers})


async def connect(addresses: Sequence[str], port: int) -> None:
    """Connect to the first of these addresses that answers, and hang up.

    Raises:
        OSError: none does; what is told is of the last one.
    """
    failure = OSError("it has no address")
    for address in addresses:
        try:
            async with asyncio.timeout(_CONNECT_S):
                _, writer = await asyncio.open_connection(address, port)
        except OSError as error:
            failure = error
        else:
            writer.transport.abort()
            return
    raise failure


def reason(error: OSError) -> str:
    """Say in a few words why a machine cannot be reached."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ConnectionRefusedError):
        return "the connection is refused"
    return error.strerror or str(error)
