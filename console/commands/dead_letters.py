"""`callfold dead-letters`: what could not be understood or done - see it, put it back, or drop it."""

from __future__ import annotations

import sys
from collections.abc import Callable

import orjson

from console.commands.common import cli_user
from console.commands.output import counted
from console.dead_letters.queue import Filter, Which
from console.dead_letters.settle import Order, Settled, known_since, settle
from shared.config.settings import Settings
from shared.errors import CallfoldError
from shared.runtime.audit import Action

_PROGRESS_EVERY = 500
_WHY_SPARED = (
    "their calls have left Redis, or may have, and would be published a second time. "
    "`--force` puts back those that are only old, never an `expired_call`."
)


async def redrive(settings: Settings, which: Which, wanted: Filter, *, dry_run: bool, as_json: bool, force: bool = False) -> int:
    """Put letters back where they came from, with progress and a count; returns the exit code. `force`: however old they are."""
    order = Order(Action.REDRIVE, cli_user(), dry_run, "" if force else known_since(settings, which))
    settled = await settle(settings, which, wanted, order, progress=_progress("redriven"))
    if settled.spared:
        spared = f"{counted(settled.spared, 'letter')} among those asked for stay: {_WHY_SPARED}"
        if wanted.ids and not settled.letters:
            raise CallfoldError(spared)
        sys.stderr.write(f"{spared}\n")
    return _tell(wanted, settled, "redriven", dry_run=dry_run, as_json=as_json)


async def drop(settings: Settings, which: Which, wanted: Filter, *, dry_run: bool, as_json: bool) -> int:
    """Remove letters for good, with progress and a count; returns the exit code."""
    order = Order(Action.DROP, cli_user(), dry_run)
    settled = await settle(settings, which, wanted, order, progress=_progress("dropped"))
    return _tell(wanted, settled, "dropped", dry_run=dry_run, as_json=as_json)


def _progress(done: str) -> Callable[[int], None]:
    def tell(settled: int) -> None:
        if settled % _PROGRESS_EVERY == 0:
            sys.stderr.write(f"{settled} {done}\n")

    return tell


def _tell(wanted: Filter, settled: Settled, done: str, *, dry_run: bool, as_json: bool) -> int:
    """Print how many it was; returns the exit code: 1 where ids were given and none was found."""
    text = f"{settled.letters} {'would be ' if dry_run else ''}{done}"
    sys.stdout.write((orjson.dumps({done: settled.letters, "dry_run": dry_run}).decode() if as_json else text) + "\n")
    return 1 if wanted.ids and not settled.letters else 0
