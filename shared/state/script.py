"""Lua scripts: files with a header that states KEYS, ARGV and the reply."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from hashlib import sha1
from importlib import resources
from typing import cast

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

Argument = str | bytes | int


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
