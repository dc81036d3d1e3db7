"""Readers that request a console at full speed, each on one connection. Run as a process: the console is all that is slowed."""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from collections import Counter
from collections.abc import Iterator
from http.client import responses

import aiohttp
import orjson

_LIMIT_S = 60


async def read(url: str, key: str, paths: Iterator[str], until: float, results: Counter[str]) -> None:
    """Request one path after the other; count the answers by status, and what is no answer by its error."""
    headers = {"Authorization": f"Bearer {key}"}
    timeout = aiohttp.ClientTimeout(total=_LIMIT_S)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout, connector=aiohttp.TCPConnector(limit=1)) as session:
        while time.monotonic() < until:
            path = next(paths)
            accept = {"Accept": "text/csv"} if path.endswith("&csv") else {}
            try:
                async with session.get(url + path.removesuffix("&csv"), headers=accept, allow_redirects=False) as response:
                    body = await response.read()
                    results[_result(response, body)] += 1
            except Exception as error:  # noqa: BLE001 - what became of it shows in the failure of the test
                results[f"{type(error).__name__}: {error}"] += 1


def _result(response: aiohttp.ClientResponse, body: bytes) -> str:
    if response.status not in responses or response.status < 400:
        return str(response.status)
    if response.content_type == "application/problem+json" and "Retry-After" in response.headers:
        return f"{response.status} {orjson.loads(body)['title']}"
    return f"{response.status} without name: {body[:100]!r}"


async def main(url: str, key: str, readers: int, seconds: float, paths: list[str]) -> None:
    until = time.monotonic() + seconds
    results: Counter[str] = Counter()
    turns = [itertools.cycle(paths[start:] + paths[:start]) for start in (number % len(paths) for number in range(readers))]
    await asyncio.gather(*(read(url, key, turn, until, results) for turn in turns))
    sys.stdout.buffer.write(orjson.dumps(results))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), sys.argv[5:]))
