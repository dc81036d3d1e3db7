"""Lua scripts: files with a header that states KEYS, ARGV and what is returned."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from hashlib import sha1
from importlib import resources
from typing import cast

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

Argument = str | bytes | int


class Script:
    """A Lua file, run by its digest; sent whole where the server does not know it (yet, or after a restart)."""

    def __init__(self, name: str) -> None:
        """Read `shared/state/scripts/<name>.lua`."""
        self._text = resources.files("shared.state").joinpath("scripts", f"{name}.lua").read_text("utf-8")
        self._digest = sha1(self._text.encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, redis: Redis, keys: Sequence[str], args: Sequence[Argument]) -> object:
        """Run it; the answer has the shape that the header of the script states: None where it returns nothing."""
        try:
            answer = redis.evalsha(self._digest, len(keys), *keys, *args)
            return await cast("Awaitable[object]", answer)
        except NoScriptError:
            answer = redis.eval(self._text, len(keys), *keys, *args)
            return await cast("Awaitable[object]", answer)
