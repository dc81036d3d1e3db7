"""Lua scripts: files with a header that states KEYS, ARGV and the reply."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from functools import cached_property
from hashlib import sha1
from importlib import resources
from typing import cast

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from shared.state.redis_client import STEP_S, RedisClient
from shared.state.replicas import Confirm

Argument = str | bytes | int
Run = tuple[Sequence[str], Sequence[Argument]]
"""The keys and arguments of one run."""


class Script:
    """A Lua file. It is run by its digest, or sent in full if the server does not have it, for example after a restart."""

    def __init__(self, name: str, *, is_guarded: bool = False) -> None:
        """Read `shared/state/scripts/<name>.lua`. If it `is_guarded`, position.lua decides whether it is run."""
        self._name = name
        self._text = _guarded(_read(name)) if is_guarded else _read(name)
        self._digest = sha1(self._text.encode(), usedforsecurity=False).hexdigest()

    @cached_property
    def guarded(self) -> Script:
        """The script behind position.lua. Of `run_each`, a reply is an error if the position was not as expected."""
        return Script(self._name, is_guarded=True)

    async def __call__(self, redis: Redis, keys: Sequence[str], args: Sequence[Argument]) -> object:
        """Run the script. The reply has the shape that its header states, or is None if the script returns nothing."""
        try:
            answer = redis.evalsha(self._digest, len(keys), *keys, *args)
            return await cast("Awaitable[object]", answer)
        except NoScriptError:
            answer = redis.eval(self._text, len(keys), *keys, *args)
            return await cast("Awaitable[object]", answer)

    async def run_each(self, redis: RedisClient, runs: Sequence[Run], confirm: Confirm = Confirm.NO) -> list[object]:
        """Run the script several times in one round trip; returns the replies in order. Each run is atomic, not all together.

        The limit of a connection is for each reply. That of a step is for all of them, since a claim must not outlast its lease.
        """
        try:
            async with asyncio.timeout(STEP_S):
                replies = await self._send(redis, runs, ("EVALSHA", self._digest), confirm)
                unknown = [number for number, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
                again = await self._send(redis, [runs[number] for number in unknown], ("EVAL", self._text), confirm)
                for number, reply in zip(unknown, again, strict=True):
                    replies[number] = reply
        except TimeoutError as error:
            raise RedisTimeoutError(f"no reply to all of {len(runs)} runs of a script within {STEP_S} s") from error
        for reply in replies:
            if isinstance(reply, Exception) and not _is_other_position(reply):
                raise reply
        return replies

    async def _send(self, redis: RedisClient, runs: Iterable[Run], script: tuple[str, str], confirm: Confirm) -> list[object]:
        batch = redis.batch(confirm)
        for keys, args in runs:
            batch.execute_command(*script, len(keys), *keys, *args)
        return await batch.execute(raise_on_error=False)


def _read(name: str) -> str:
    return resources.files("shared.state").joinpath("scripts", f"{name}.lua").read_text("utf-8")


def _guarded(script: str) -> str:
    """Return a script as a function, with position.lua behind it. The first line has the flags of the script."""
    flags, _, body = script.partition("\n")
    _, _, position = _read("position").partition("\n")
    return f"{flags}\nlocal function script()\n{body}end\n{position}"


def _is_other_position(error: Exception) -> bool:
    return isinstance(error, ResponseError) and str(error).startswith("STATE ")
