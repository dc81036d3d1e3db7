"""Lua scripts: files with a header that states KEYS, ARGV and the reply."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Sequence
from hashlib import sha1
from importlib import resources
from typing import cast

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

Argument = str | bytes | int
Run = tuple[Sequence[str], Sequence[Argument]]
"""The keys and arguments of one run."""


class Script:
    """A Lua file. It is run by its digest, or sent in full if the server does not have it, for example after a restart."""

    def __init__(self, name: str) -> None:
        """Read `shared/state/scripts/<name>.lua`."""
        self._text = resources.files("shared.state").joinpath("scripts", f"{name}.lua").read_text("utf-8")
        self._digest = sha1(self._text.encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, redis: Redis, keys: Sequence[str], args: Sequence[Argument]) -> object:
        """Run the script. The reply has the shape that its header states, or is None if the script returns nothing."""
        try:
            answer = redis.evalsha(self._digest, len(keys), *keys, *args)
            return await cast("Awaitable[object]", answer)
        except NoScriptError:
            answer = redis.eval(self._text, len(keys), *keys, *args)
            return await cast("Awaitable[object]", answer)

    async def run_each(self, redis: Redis, runs: Sequence[Run]) -> list[object]:
        """Run the script several times in one round trip; returns the replies in order. Each run is atomic, not all together."""
        replies = await self._send(redis, runs)
        missing = [number for number, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if missing:
            first, *others = missing
            replies[first] = await self(redis, *runs[first])  # the server has the script then
            for number, reply in zip(others, await self._send(redis, [runs[number] for number in others]), strict=True):
                replies[number] = reply
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return replies

    async def _send(self, redis: Redis, runs: Iterable[Run]) -> list[object]:
        async with redis.pipeline(transaction=False) as pipe:
            for keys, args in runs:
                pipe.evalsha(self._digest, len(keys), *keys, *args)
            return await pipe.execute(raise_on_error=False)
