"""An intake for tests of the HTTP side, in which no source waits, and what answers refusals."""

from __future__ import annotations

from collections.abc import Collection
from typing import cast

from ingress.fair_shares import FairShares
from ingress.group_commit import GroupCommit
from ingress.intake import Intake
from ingress.probes import Probes
from ingress.refusals import Refusals
from ingress.waiting import Waiting
from shared.domain.ids import SourceName
from shared.runtime.client_address import Proxies


def published_at_once(sources: Collection[SourceName], commit: GroupCommit, *, bytes_per_day: int = 1 << 40) -> Intake:
    """Publish every callback at once, up to an allowance; the routes change only if the test updates the shares."""
    shares = FairShares(sources, bytes_per_day=bytes_per_day, max_waiting_bytes=1 << 30)
    return Intake(shares, commit, cast("Waiting", None), cast("Probes", None))


def counted() -> Refusals:
    """Answer refusals without a quarantine: they are counted and logged."""
    return Refusals(Proxies(""))
