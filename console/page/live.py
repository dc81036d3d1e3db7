"""The live page's content: counters, sparklines and the open calls on one axis that ends now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from console.live.snapshot import Snapshot
from console.page.links import call_url
from console.page.sparkline import Sparkline, sparkline
from console.page.text import duration, number, seconds_between
from console.page.timeline import MOST_LANES, Axis, Lane, Tick, ages, lanes
from console.page.words import outcome
from shared.amqp.topology import CALLBACKS_DEAD, CALLBACKS_FOLD, RECORDINGS, RECORDINGS_DEAD
from shared.domain.adapter_link import Placeholder
from shared.domain.call import Call
from shared.domain.callback import CallType
from shared.domain.leg import Leg, LegState

_SPANS_S = (30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)
_SHOWN_WHOLE = 0.8  # of the open calls, so that one forgotten call does not squeeze all others
_FULL_QUEUE = 1000


@dataclass(frozen=True, slots=True)
class Counter:
    """One figure. `alarm` where it asks for somebody's attention; `href` leads to more of it."""

    name: str
    value: str
    note: str = ""
    alarm: bool = False
    href: str | None = None


@dataclass(frozen=True, slots=True)
class OpenCall:
    """One open call as a row. `more_legs`: so many are not drawn."""

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
    """What the fragment shows of a snapshot."""

    at: str
    counters: tuple[Counter, ...]
    completions: tuple[tuple[str, str, int], ...]
    completed: int
    completed_over: str
    sparklines: tuple[tuple[str, Sparkline], ...]
    problems: Sequence[str]
    calls: tuple[OpenCall, ...]
    open_count: int
    ticks: tuple[Tick, ...]


def live_view(snapshot: Snapshot) -> LiveView:
    """Work out what the live page shows at this moment."""
    axis = _axis(snapshot)
    completions = sorted(snapshot.completions.items(), key=lambda item: -item[1])
    return LiveView(
        at=snapshot.at,
        counters=_counters(snapshot),
        completions=tuple((name, outcome(name), count) for name, count in completions),
        completed=sum(snapshot.completions.values()),
        completed_over=duration(round(seconds_between(snapshot.since, snapshot.at))),
        sparklines=(
            ("Callbacks per second", sparkline(snapshot.callbacks, "callbacks per second")),
            ("Completions per second", sparkline(snapshot.per_second_completed, "calls completed per second")),
        ),
        problems=snapshot.problems,
        calls=tuple(_open_call(call, axis, snapshot.at) for call in snapshot.open_calls),
        open_count=snapshot.open_count,
        ticks=ages(axis),
    )


def _axis(snapshot: Snapshot) -> Axis:
    lengths = sorted(max(seconds_between(call.started_at, snapshot.at), 0) for call in snapshot.open_calls)
    wanted = lengths[min(int(len(lengths) * _SHOWN_WHOLE), len(lengths) - 1)] if lengths else 0
    span = next((span for span in _SPANS_S if span >= wanted), _SPANS_S[-1])
    end = datetime.fromisoformat(snapshot.at)
    return Axis(end - timedelta(seconds=span), end)


def _counters(snapshot: Snapshot) -> tuple[Counter, ...]:
    depths = snapshot.depths
    waiting = [depth for queue, depth in depths.items() if queue.startswith(RECORDINGS) and queue != RECORDINGS_DEAD]
    failed, unread, fold = depths.get(RECORDINGS_DEAD), depths.get(CALLBACKS_DEAD), depths.get(CALLBACKS_FOLD)
    oldest = seconds_between(snapshot.oldest_open_at, snapshot.at) if snapshot.oldest_open_at else None
    return (
        Counter("Callbacks per second", number(snapshot.callbacks[-1] if snapshot.callbacks else 0)),
        Counter("Open calls", number(snapshot.open_count), href="/ui/calls?state=open"),
        Counter("Oldest open call", duration(oldest)),
        Counter("Fold queue", number(fold), alarm=(fold or 0) >= _FULL_QUEUE),
        Counter("Recordings waiting", number(_sum(waiting))),
        Counter("Recordings failed", number(failed), alarm=bool(failed), href="/ui/dead-letters?which=recordings"),
        Counter("Dead letters", number(unread), alarm=bool(unread), href="/ui/dead-letters?which=callbacks"),
    )


def _sum(depths: Sequence[int | None]) -> int | None:
    known = [depth for depth in depths if depth is not None]
    return sum(known) if known else None


def _open_call(call: Call, axis: Axis, at: str) -> OpenCall:
    legs = call.legs or _awaited(call)
    return OpenCall(
        name=str(call.key),
        href=call_url(*call.key),
        anchor=f"call-{call.key.source}-{call.key.call}",
        status=call.status,
        agent=call.dial.get("agent") or _told(call, Placeholder.AGENT_EXTENSION, Placeholder.AGENT),
        number=call.dial.get("number") or _told(call, Placeholder.CALLER_ID, Placeholder.DID),
        age=duration(max(seconds_between(call.started_at, at), 0)),
        lanes=lanes(legs, axis, at, call.started_at),
        more_legs=max(len(legs) - MOST_LANES, 0),
    )


def _awaited(call: Call) -> tuple[Leg, ...]:
    """Make the leg of which no callback has told yet: a dialed call rings at the agent's since the dial."""
    return (Leg(CallType.API, "", call.started_at, LegState.RINGING, inferred=True),) if call.dial else ()


def _told(call: Call, *placeholders: str) -> str | None:
    return next((leg.fields[name] for name in placeholders for leg in call.legs if leg.fields.get(name)), None)
