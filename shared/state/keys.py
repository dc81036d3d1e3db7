"""Names of the keys in Redis.

`{p}` is the tag of one of 16 partitions. It is a hash tag, so the keys of one script share a slot of Redis Cluster.
One server has the tags `0` to `15`. A cluster has tags with evenly spread slots, so that its masters share the partitions.

- `callfold:{p}:facts:<source>/<call>`: hash of facts, see `facts.py`.
- `callfold:{p}:publication:<source>/<call>`: hash with version and legs (of the facts), merged_ms (their last change),
  revision, state and summary. `uses` is how many uses the RequestID had, see `uses.py`.
  `=<digest>` is the body of an annotation (`annotation.py`); bodies and body_bytes are their number and size.
  While the revision is claimed, it also has holder, until_ms, outbox, and seen (the version from
  which the outbox was made).
- `callfold:{p}:open`: sorted set of open calls, scored by wake-up time (ms since 1970).
- `callfold:{p}:recent`: sorted set of calls, open or not, scored by start (microseconds since 1970), for queries.
- `callfold:{p}:position`: hash with the generation and the state of the partition, see `positions.py`.
- `callfold:{p}:waiting`: list of raw events that wait until the partition is rebuilt.
- `callfold:lock:<name>`: holder of an exclusive lock, see `locks.py`.
- `callfold:note:<name>`: a flag or a short text that expires, see `flags.py`.
- `callfold:refused_legs:<source>`: the last call of a source that has too many legs, see `refused_legs.py`.
- `callfold:unreplaced:<source>`: the placeholders of a source that arrived unreplaced, see `unreplaced.py`.
- `callfold:unfinished_recordings`: sorted set of recording jobs, see `unfinished_recordings.py`.
- `callfold:previous_secrets`: when each source last used a previous secret, see `previous_secrets.py`.
- `callfold:pbx_clock:<source>`, `callfold:pbx_clock_at:<source>`: how far the clock of its PBX is ahead, see `pbx_clocks.py`.
- `callfold:{pbx/<source>}:counts`, `:ids`, `:dials`, `:minutes/<day>`: observations of a PBX, see `pbx_watch.py` and `watch.lua`.
- `callfold:{watermark}:members`, `:rounds`, `:spools`: reports on callbacks that are not folded yet, see `barrier.py`.
- `callfold:dial:...`: dial requests, see `dials.py`.
- `callfold:ops`: hash of the conditions that operators are informed of, see `condition.py`.
- `callfold:broker_move`: how far a move to another RabbitMQ has come, see `broker_move.py`.
- `callfold:probe`: written to find out whether Redis can be written. In a cluster also `callfold:{p}:probe` and
  `callfold:{watermark}:probe`.

The facts of a published call expire after the retention time, its publication some time later. Open calls never expire.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

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


@dataclass(frozen=True, slots=True)
class Keys:
    """Makes the names of the keys of partitions. Nothing else does, because the tags depend on the kind of the server."""

    tags: tuple[str, ...]

    def open(self, number: int) -> str:
        return self._name(number, "open")

    def recent(self, number: int) -> str:
        return self._name(number, "recent")

    def facts(self, number: int, key: CallKey) -> str:
        return self._name(number, f"facts:{key}")

    def publication(self, number: int, key: CallKey) -> str:
        return self._name(number, f"publication:{key}")

    def position(self, number: int) -> str:
        return self._name(number, "position")

    def waiting(self, number: int) -> str:
        return self._name(number, "waiting")

    def facts_and_publications(self, number: int, keys: Iterable[CallKey]) -> list[str]:
        return [name for key in keys for name in (self.facts(number, key), self.publication(number, key))]

    def probe(self, number: int) -> str:
        return self._name(number, "probe")

    def _name(self, number: int, what: str) -> str:
        return f"callfold:{{{self.tags[number]}}}:{what}"


PLAIN_KEYS: Final = Keys(tuple(map(str, range(PARTITIONS))))
"""Of a single server and of Sentinel, as in the first release."""

# The slot of tag p, its CRC16 modulo 16384, is within 32 of the middle of the p-th of 16 equal ranges.
CLUSTER_KEYS: Final = Keys((
    "0-67", "1-236", "2-315", "3-102", "4-13", "5-242", "6-361", "7-176",
    "8-265", "9-238", "10-7", "11-37", "12-231", "13-470", "14-167", "15-43",
))  # fmt: skip
"""Of a cluster. A changed tag would lose the calls of its partition, so they stay as they are."""


def watermark_key(what: str) -> str:
    """Return the name of a hash of reports. All of them share a slot, because one script reads them."""
    return f"callfold:{{watermark}}:{what}"
