"""The content of the live page: counters, sparklines, and the open calls on one axis that ends now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from console.ignored_values import UnreplacedProblem
from console.live.snapshot import Snapshot
from console.page.axis import Axis, Tick, ages
from console.page.labels import outcome
from console.page.sparkline import Sparkline, sparkline
from console.page.text import duration, moved, number, seconds_between
from console.page.timeline import MAX_LANES, Lane, lanes
from console.page.urls import call_url
from console.request_ids import RequestIdProblem
from shared.amqp.topology import CALLBACKS_DEAD, CALLBACKS_FOLD, RECORDINGS, RECORDINGS_DEAD
from shared.domain.call import Call
from shared.domain.leg import Leg, LegState
from shared.domain.leg_event import CallType
from shared.domain.people import Person, person_of

_AXIS_LENGTHS_S = (30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)
_SHARE_SHOWN_WHOLE = 0.8  # of the open calls, so that one forgotten call does not squeeze the others
_FULL_QUEUE = 1000


@dataclass(frozen=True, slots=True)
class Counter:
    """One figure. `alarm` marks one that needs attention; `href` links to details."""

    name: str
    value: str
    alarm: bool = False
    href: str | None = None


@dataclass(frozen=True, slots=True)
class OpenCall:
    """One open call. `more_legs` is the number of legs that are not drawn."""

    name: str
    href: str
    anchor: str
    status: str
    agent: str | None
    number: str | None
    age: str
    lanes: tuple[Lane, ...]
    more_legs: int


@dataclass(frozen=True, slots=True)
class LiveView:
    """The values that the template `_live.html` shows."""

    at: str
    counters: tuple[Counter, ...]
    completions: tuple[tuple[str, str, int], ...]
    completed: int
    completed_over: str
    logins: int
    sparklines: tuple[tuple[str, Sparkline], ...]
    problems: Sequence[str]
    request_ids: Sequence[RequestIdProblem]
    pbx_clocks: Sequence[str]
    unreplaced: Sequence[UnreplacedProblem]
    previous_secrets: Sequence[str]
    sources_file: Sequence[str]
    refusals: Sequence[str]
    pbx_conditions: Sequence[str]
    pbx_figures: Sequence[str]
    calls: tuple[OpenCall, ...]
    open_count: int
    ticks: tuple[Tick, ...]


def live_view(snapshot: Snapshot) -> LiveView:
    """Prepare a snapshot for the live page."""
    axis = _axis(snapshot)
    completions = sorted(snapshot.completions.items(), key=lambda item: -item[1])
    return LiveView(
        at=snapshot.at,
        counters=_counters(snapshot),
        completions=tuple((name, outcome(name), count) for name, count in completions),
        completed=sum(snapshot.completions.values()),
        completed_over=duration(round(seconds_between(snapshot.since, snapshot.at))),
        logins=snapshot.logins,
        sparklines=(
            ("Callbacks per second", sparkline(snapshot.callbacks, "callbacks per second")),
            ("Completions per second", sparkline(snapshot.per_second_completed, "calls completed per second")),
        ),
        problems=snapshot.problems,
        request_ids=snapshot.request_ids,
        pbx_clocks=snapshot.pbx_clocks,
        unreplaced=snapshot.unreplaced,
        previous_secrets=snapshot.previous_secrets,
        sources_file=snapshot.sources_file,
        refusals=snapshot.refusals if snapshot.has_refused_callbacks else (),
        pbx_conditions=snapshot.pbx_conditions,
        pbx_figures=snapshot.pbx_figures,
        calls=tuple(_open_call(call, axis, snapshot.at) for call in snapshot.open_calls),
        open_count=snapshot.open_count,
        ticks=ages(axis),
    )


def _axis(snapshot: Snapshot) -> Axis:
    lengths = sorted(max(seconds_between(call.first_event_at, snapshot.at), 0) for call in snapshot.open_calls)
    needed = lengths[min(int(len(lengths) * _SHARE_SHOWN_WHOLE), len(lengths) - 1)] if lengths else 0
    length = next((length for length in _AXIS_LENGTHS_S if length >= needed), _AXIS_LENGTHS_S[-1])
    end = datetime.fromisoformat(snapshot.at)
    return Axis(end - timedelta(seconds=length), end)


def _counters(snapshot: Snapshot) -> tuple[Counter, ...]:
    depths = snapshot.depths
    waiting = [depth for queue, depth in depths.items() if queue.startswith(RECORDINGS) and queue != RECORDINGS_DEAD]
    dead_jobs, dead_callbacks, fold = depths.get(RECORDINGS_DEAD), depths.get(CALLBACKS_DEAD), depths.get(CALLBACKS_FOLD)
    oldest = seconds_between(snapshot.oldest_open_at, snapshot.at) if snapshot.oldest_open_at else None
    return (
        Counter("Callbacks per second", number(snapshot.callbacks[-1] if snapshot.callbacks else 0)),
        Counter("Open calls", number(snapshot.open_count), href="/ui/calls?state=open"),
        Counter("Oldest open call", duration(oldest)),
        Counter("Fold queue", number(fold), alarm=(fold or 0) >= _FULL_QUEUE),
        Counter("Recordings waiting", number(_sum(waiting))),
        Counter("Recordings failed", number(dead_jobs), alarm=bool(dead_jobs), href="/ui/dead-letters?which=recordings"),
        Counter("Dead letters", number(dead_callbacks), alarm=bool(dead_callbacks), href="/ui/dead-letters?which=callbacks"),
        Counter("Refused in a day", number(snapshot.refused_count), alarm=snapshot.has_refused_callbacks),
    )


def _sum(depths: Sequence[int | None]) -> int | None:
    known = [depth for depth in depths if depth is not None]
    return sum(known) if known else None


def _open_call(call: Call, axis: Axis, at: str) -> OpenCall:
    legs, ahead_s = call.legs or _ringing_agent(call), call.pbx_ahead_seconds or 0
    return OpenCall(
        name=str(call.key),
        href=call_url(*call.key),
        anchor=f"call-{call.key.source}-{call.key.call}",
        status=call.status,
        agent=_agent(call),
        number=_number(call),
        age=duration(max(seconds_between(call.first_event_at, at), 0)),
        lanes=lanes(legs, axis.moved(ahead_s), moved(at, ahead_s), call.started_at),
        more_legs=max(len(legs) - MAX_LANES, 0),
    )


def _ringing_agent(call: Call) -> tuple[Leg, ...]:
    """Infer the leg of a dialed call without callbacks: the agent's phone rings since the dial."""
    return (Leg(CallType.API, "", call.started_at, LegState.RINGING, inferred=True),) if call.dial else ()


def _agent(call: Call) -> str | None:
    """Return the extension or name of the agent, else the agent of the dial request if no other agent was called."""
    person = person_of(call, call.agent) if call.agent else Person()
    is_only_one = all(leg.call_type is not CallType.API for leg in call.other_legs)
    return person.extension or person.name or (call.dial.get("agent") if is_only_one else None)


def _number(call: Call) -> str | None:
    """Return the number of the far party, else that of the dial request if no other number was dialed."""
    numbers = [person_of(call, leg).number for leg in (call.dialed, call.agent) if leg]
    is_only_one = all(leg.call_type is not CallType.OUTGOING for leg in call.other_legs)
    return next(filter(None, numbers), call.dial.get("number") if is_only_one else None)
