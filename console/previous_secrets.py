"""Sources that have previous secrets: which of them still use one, as `callfold doctor` and the page report them."""

from __future__ import annotations

from datetime import timedelta

from shared.clock import utc_now
from shared.config.sources import Sources
from shared.domain.ids import SourceName
from shared.domain.times import at_microseconds, microseconds
from shared.errors import StoreUnavailableError
from shared.state.store import Store

_FOR = timedelta(days=1)


async def read_last_uses(store: Store, sources: Sources) -> dict[SourceName, str | None]:
    """Return when each source with previous secrets last used one (RFC 3339 UTC); None if it never did.

    Raises:
        StoreUnavailableError: Redis does not answer.
    """
    names = [name for name, source in sources.items() if source.previous_secrets]
    used = await store.previous_secrets.of(names)
    return {name: used.get(name) for name in names}


async def find_previous_secrets(store: Store, sources: Sources) -> list[str]:
    """Describe each source that used a previous secret in the last day. None while Redis is unavailable."""
    try:
        uses = await read_last_uses(store, sources)
    except StoreUnavailableError:
        return []
    return [_in_use(name, at) for name, at in uses.items() if at is not None and is_in_use(at)]


def is_in_use(at: str) -> bool:
    """Return whether the last use of a previous secret was in the last day."""
    return at >= at_microseconds(microseconds(utc_now()) - _FOR // timedelta(microseconds=1))


def describe(name: SourceName, at: str | None) -> str:
    """Describe a source with previous secrets, given their last use."""
    if at is not None and is_in_use(at):
        return _in_use(name, at)
    since = "has not used a previous secret" if at is None else f"last used a previous secret at {at}"
    return f"Source {name} {since}. Remove `previous_secrets` once no link in FocalScope has one."


def _in_use(name: SourceName, at: str) -> str:
    return (
        f"Source {name} still uses a previous secret, last at {at}. Give FocalScope the link of `callfold adapter-link {name}`. "
        "Then remove `previous_secrets`."
    )
