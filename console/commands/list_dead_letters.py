"""`callfold dead-letters list|show`: what could not be understood or done, printed."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import orjson

from console.commands.output import counted
from console.dead_letters.queue import Filter, Which, opened
from console.safe_text import plain_line
from shared.config.settings import Settings


async def show(settings: Settings, which: Which, wanted: Filter, *, as_json: bool, with_body: bool) -> int:
    """Print the letters that match; returns the exit code: 1 where ids were given and none was found."""
    matches, found = wanted.matcher(), 0
    async with opened(settings, which) as queue:
        async for letter in queue.letters:
            if matches(letter):
                found += 1
                told = letter.told(with_body=with_body)
                sys.stdout.write(orjson.dumps(told).decode() + "\n" if as_json else _text(told))
    if not as_json:
        sys.stderr.write(f"{counted(found, 'dead letter')} in {which.queue}\n")
    return 1 if wanted.ids and not found else 0


def _text(told: Mapping[str, object]) -> str:
    line = plain_line(f"{told['id']}  {told['first_seen']:<27}  {told['reason']:<20}  {told['detail']}") + "\n"
    return line + f"    {plain_line(told['body'])}\n" if "body" in told else line
