"""Names of the keys in Redis.

`{p}` is one of 16 partitions. It is a hash tag, so the keys of one script share a slot of Redis Cluster.

- `callfold:{p}:facts:<source>/<call>`: hash of facts, see `facts.py`.
- `callfold:{p}:publication:<source>/<call>`: hash with version and legs (of the facts), merged_ms (their last change),
  revision, state and summary. `uses` is how many uses the RequestID had, see `uses.py`.
  While the revision is claimed, it also has holder, until_ms, outbox, and seen (the version from
  which the outbox was made).
- `callfold:{p}:open`: sorted set of open calls, scored by wake-up time (ms since 1970).
- `callfold:{p}:recent`: sorted set of calls, open or not, scored by start (microseconds since 1970), for queries.
- `callfold:lock:<name>`: holder of an exclusive lock, see `locks.py`.
- `callfold:note:<name>`: a flag or a short text that expires, see `flags.py`.
- `callfold:refused_legs:<source>`: the last call of a source that has too many legs, see `refused_legs.py`.
- `callfold:unreplaced:<source>`: the placeholders of a source that arrived unreplaced, see `unreplaced.py`.
- `callfold:pbx_clock:<source>`, `callfold:pbx_clock_at:<source>`: how far the clock of its PBX is ahead, see `pbx_clocks.py`.
- `callfold:{watermark}:members`, `:rounds`, `:spools`: reports on callbacks that are not folded yet, see `barrier.py`.
- `callfold:dial:...`: dial requests, see `dials.py`.
- `callfold:probe`: written to find out whether Redis can be written.

The facts of a published call expire after the retention time, its publication some time later. Open calls never expire.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from shared.domain.ids import CallKey, CallRef, SourceName

PARTITIONS = 16
PROBE_KEY = "callfold:probe"


def partition(key: CallKey) -> int:
    """Return the partition of a call; it is the same on every machine and in every release."""
    return zlib.crc32(str(key).encode()) % PARTITIONS


def by_partition(keys: Iterable[CallKey]) -> dict[int, list[CallKey]]:
    """Sort calls by their partition."""
    parts: dict[int, list[CallKey]] = {}
    for key in keys:
        parts.setdefault(partition(key), []).append(key)
    return parts


def parse_call_key(name: str) -> CallKey:
    source, _, call = name.partition("/")
    return CallKey(SourceName(source), CallRef(call))


def open_key(number: int) -> str:
    return f"callfold:{{{number}}}:open"


def recent_key(number: int) -> str:
    return f"callfold:{{{number}}}:recent"


def facts_key(number: int, key: CallKey) -> str:
    return f"callfold:{{{number}}}:facts:{key}"


def publication_key(number: int, key: CallKey) -> str:
    return f"callfold:{{{number}}}:publication:{key}"


def facts_and_publication_keys(number: int, keys: Iterable[CallKey]) -> list[str]:
    return [name for key in keys for name in (facts_key(number, key), publication_key(number, key))]
