"""The data of the live page at one moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from console.ignored_values import UnreplacedProblem
from console.request_ids import RequestIdProblem
from shared.domain.call import Call


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Open calls, rates, outcomes and queue depths at one moment.

    Attributes:
        at: time of the snapshot, RFC 3339 UTC.
        open_calls: newest first, at most `OPEN_SHOWN`; `open_count` counts all.
        oldest_open_at: start of the oldest open call.
        callbacks: callbacks in each of the last `SECONDS_SHOWN` seconds, the latest last.
        completions: completed calls by outcome, since `since`. A login is no such call.
        logins: logins since `since`.
        per_second_completed: completed calls in each of these seconds.
        depths: waiting messages by queue; None if RabbitMQ did not answer.
        problems: sentences that name the servers that cannot be reached.
        request_ids: the sources that send one RequestID for many calls.
        pbx_clocks: sentences about the PBXs whose clocks are wrong.
        pbx_conditions: sentences about what is wrong with PBXs, by what their callbacks show.
        pbx_figures: sentences about every PBX.
        refused_count: requests that ingress refused in the last day, with a sentence for each kind in `refusals`.
        has_refused_callbacks: whether some of them were surely callbacks.
        unreplaced: the sources whose placeholders arrive unreplaced.
        previous_secrets: sentences about the sources that use a previous secret.
        sources_file: a sentence about the sources file, if it has a fault.
    """

    at: str
    since: str
    open_calls: Sequence[Call]
    open_count: int
    oldest_open_at: str | None
    callbacks: Sequence[int]
    per_second_completed: Sequence[int]
    completions: Mapping[str, int]
    depths: Mapping[str, int | None]
    problems: Sequence[str] = ()
    logins: int = 0
    request_ids: Sequence[RequestIdProblem] = ()
    pbx_clocks: Sequence[str] = ()
    unreplaced: Sequence[UnreplacedProblem] = ()
    previous_secrets: Sequence[str] = ()
    sources_file: Sequence[str] = ()
    refused_count: int = 0
    refusals: Sequence[str] = ()
    has_refused_callbacks: bool = False
    pbx_conditions: Sequence[str] = ()
    pbx_figures: Sequence[str] = ()


OPEN_SHOWN = 50
SECONDS_SHOWN = 120
