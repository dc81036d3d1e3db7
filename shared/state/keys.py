"""How calls lie in Redis: the partitions, the names of their keys, what is read of one call.

Keys (`{p}` is one of 16 partitions, a hash tag, so that a script's keys share a slot on Redis Cluster):

- `callfold:{p}:facts:<source>/<call>` hash of facts, see `facts.py`
- `callfold:{p}:publication:<source>/<call>` hash: version (of the facts), revision, state, summary (of what was published),
  and while claimed: holder, until_ms, outbox, seen (the version the outbox was made of)
- `callfold:lock:<name>` holder of an exclusive lock
- `callfold:{watermark}:members`, `:rounds`, `:spools` what is reported of callbacks not folded yet, see `barrier.py`
- `callfold:note:<name>` that something is done, until nobody asks any more
- `callfold:{p}:open` sorted set of open calls, scored by when to look at them again (ms since 1970)
- `callfold:{p}:recent` sorted set of calls, open or not, scored by their start (microseconds since 1970), for look-ups

The facts of published calls expire after the retain time, their publications some time later; open calls never expire.
"""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar, cast

from redis.exceptions import AuthenticationError, RedisError

from shared.domain.ids import CallKey, CallRef, SourceName
from shared.errors import StoreUnavailableError

PARTITIONS = 16
# uvloop's words for a write to a connection that an earlier write found reset. redis-py expects an `OSError` there.
_CLOSED_UNDER_A_WRITE = "the handler is closed"

_T = TypeVar("_T")


class State(StrEnum):
    """How far the publication of a call's last revision is."""

    NONE = ""
    CLAIMED = "claimed"
    PUBLISHED = "published"
    TOMBSTONED = "tombstone"


@dataclass(frozen=True, slots=True)
class Folded:
    """A call after a merge.

    Attributes:
        facts: all of them.
        revision: the last one that was claimed or published; 0 where none was.
        summary: of what was published last.
        version: of the facts: who has the highest one has seen them all.
        wake_at_ms: when the call is to be looked at again (ms since 1970), or None.
    """

    facts: Mapping[str, str]
    revision: int
    state: State
    summary: str
    version: str
    wake_at_ms: int | None


def partition(key: CallKey) -> int:
    """Spread calls over the partitions; the same on every machine and in every release."""
    return zlib.crc32(str(key).encode()) % PARTITIONS


def folded(row: Sequence[object]) -> Folded:
    flat, revision, state, summary, version, wake_at = row
    pairs = [text(item) for item in cast("list[bytes]", flat)]
    facts = dict(zip(pairs[::2], pairs[1::2], strict=True))
    wake_at_ms = round(float(text(wake_at))) if wake_at else None
    return Folded(facts, int(text(revision)), State(text(state)), text(summary), text(version), wake_at_ms)


def text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def read_key(name: str) -> CallKey:
    source, _, call = name.partition("/")
    return CallKey(SourceName(source), CallRef(call))


def open_key(number: int) -> str:
    return f"callfold:{{{number}}}:open"


def facts_key(number: int, key: CallKey) -> str:
    return f"callfold:{{{number}}}:facts:{key}"


def publication_key(number: int, key: CallKey) -> str:
    return f"callfold:{{{number}}}:publication:{key}"


def pairs(number: int, keys: Iterable[CallKey]) -> list[str]:
    return [name for key in keys for name in (facts_key(number, key), publication_key(number, key))]


def recent_key(number: int) -> str:
    return f"callfold:{{{number}}}:recent"


async def redis_reply(work: Awaitable[_T]) -> _T:
    """Await what asks Redis.

    Raises:
        StoreUnavailableError: Redis did not answer, cannot do it now, or the connection closed under the question.
    """
    try:
        return await work
    except AuthenticationError as error:
        raise StoreUnavailableError("Redis refused the user or password") from error
    except (RedisError, OSError) as error:
        raise StoreUnavailableError(f"Redis: {type(error).__name__}: {error}") from error
    except RuntimeError as error:
        if _CLOSED_UNDER_A_WRITE not in str(error):
            raise
        raise StoreUnavailableError("Redis: the connection was lost") from error
