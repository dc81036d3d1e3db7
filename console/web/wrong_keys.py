"""Wrong keys by client address: a client that guesses is limited, and what is audited of it is bounded."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict, deque
from typing import NoReturn

from shared.runtime.audit import Action, Audit

MINUTE_S = 60
MAX_PER_MINUTE = 30
_MAX_CLIENTS = 10_000
# Of all clients together: a client can have very many addresses.
_MAX_AUDITED_PER_MINUTE = 300
_MAX_COUNTS_PER_MINUTE = 20
_OTHERS = "other addresses"


class WrongKeys:
    """Wrong keys of the last minute by client. Only the client that guesses is limited."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self._latest: OrderedDict[str, deque[float]] = OrderedDict()
        self._audited: deque[float] = deque(maxlen=_MAX_AUDITED_PER_MINUTE)
        self._only_counted: Counter[str] = Counter()

    def is_limited(self, client: str) -> bool:
        """Return whether a client has used up its wrong keys of this minute."""
        return _is_full(self._latest.get(client, deque[float]()))

    async def add(self, client: str) -> None:
        """Record a wrong key. It is audited at once, or beyond the limits only in the count of the minute."""
        now, is_limited = time.monotonic(), self.is_limited(client)
        if not is_limited:
            self._latest.setdefault(client, deque(maxlen=MAX_PER_MINUTE)).append(now)
            self._latest.move_to_end(client)
            while len(self._latest) > _MAX_CLIENTS:
                self._latest.popitem(last=False)
        if is_limited or _is_full(self._audited):
            is_known = client in self._only_counted or len(self._only_counted) < _MAX_CLIENTS
            self._only_counted[client if is_known else _OTHERS] += 1
            return
        self._audited.append(now)
        await self._audit.record(Action.LOG_IN_REFUSED, client)

    async def run(self) -> NoReturn:
        """Audit the counts of each minute. Run it as a task."""
        while True:
            await asyncio.sleep(MINUTE_S)
            await self.audit_counts()

    async def audit_counts(self) -> None:
        """Audit how many wrong keys were only counted since the last time: the most frequent clients, and the others as one."""
        counts, self._only_counted = self._only_counted, Counter()
        frequent = dict(counts.most_common(_MAX_COUNTS_PER_MINUTE))
        rest = counts.total() - sum(frequent.values())
        for client, count in (frequent | ({_OTHERS: frequent.get(_OTHERS, 0) + rest} if rest else {})).items():
            await self._audit.record(Action.LOG_IN_REFUSED, client, count=count)


def _is_full(times: deque[float]) -> bool:
    """Return whether the last minute has as many entries as the queue can have."""
    return len(times) == times.maxlen and time.monotonic() - times[0] < MINUTE_S
