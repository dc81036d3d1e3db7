"""A fake server of Redis, Sentinel or Cluster that gives each command its scripted answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from shared.state.redis_url import Address

Answer = bytes | int | Sequence["Answer"]


def encode(answer: Answer) -> bytes:
    """Write an answer in the protocol of Redis."""
    if isinstance(answer, bytes):
        return b"$%d\r\n%s\r\n" % (len(answer), answer)
    if isinstance(answer, int):
        return b":%d\r\n" % answer
    return b"*%d\r\n%s" % (len(answer), b"".join(map(encode, answer)))


@asynccontextmanager
async def answering_redis(answers: Mapping[str, Answer]) -> AsyncIterator[Address]:
    """Serve until the block ends. A command is known by its first two words, and any other one is answered OK."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            words = []
            for _ in range(int(line[1:])):
                await reader.readline()
                words.append((await reader.readline()).decode().strip().upper())
            answer = answers.get(" ".join(words[:2]))
            writer.write(b"+OK\r\n" if answer is None else encode(answer))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listener:
        yield Address("127.0.0.1", listener.sockets[0].getsockname()[1])
