"""What the workers have observed of each PBX, as `callfold doctor` and the live page report it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final, NamedTuple

from shared.config.sources import Sources
from shared.domain.pbx_report import PbxCondition, describe, pbx_conditions
from shared.state.store import Store

_FRESH_S: Final = 10.0  # workers write every few seconds


class PbxFindings(NamedTuple):
    """Conditions that an operator should know, and sentences on every source."""

    conditions: Sequence[PbxCondition] = ()
    sentences: Sequence[str] = ()


async def read_pbx_findings(store: Store, sources: Sources) -> PbxFindings:
    """Read what is known of each PBX now.

    Raises:
        StoreUnavailableError: Redis does not answer.
    """
    now_ms = round((await store.now()).timestamp() * 1000)
    reports = await store.pbx_watch.reports(sources, now_ms)
    return PbxFindings(pbx_conditions(reports, now_ms), [" ".join(describe(report, now_ms)) for report in reports])


class RecentPbxFindings:
    """The same, for a page that is updated every second."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._findings = PbxFindings()
        self._read_at = -_FRESH_S

    async def read(self, sources: Sources) -> PbxFindings:
        """Return findings that are at most some seconds old.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        now = time.monotonic()
        if now - self._read_at >= _FRESH_S:
            self._findings = await read_pbx_findings(self._store, sources)
            self._read_at = now
        return self._findings
