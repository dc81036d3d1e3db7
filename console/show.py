"""`callfold show`: one call - its record, its raw timeline, and why it is in its state."""

from __future__ import annotations

import sys
from contextlib import aclosing
from dataclasses import asdict
from datetime import datetime, timedelta

import orjson

from console.journal import journal_until_now
from shared.adapter import mask_credentials
from shared.call import Call, derive
from shared.errors import CallfoldError, ConfigError, InvalidCallbackError
from shared.events import CallbackEvent, RawEvent, Undecodable, decode, encode
from shared.facts import URL, facts_of
from shared.ids import CallKey, CallRef, SourceName
from shared.records import call_record
from shared.settings import Settings
from shared.sources import Sources
from shared.store import Folded, Store
from shared.topology import CALLBACKS_JOURNAL

_BEFORE = timedelta(minutes=1)
_SIDES = {"API": "the agent's", "Outgoing": "the dialed party's"}


async def show(settings: Settings, source: str, call: str, *, as_json: bool) -> int:
    """Print a call; exit code 1 where Redis has none of that name."""
    sources = settings.load_sources()
    if source not in sources:
        raise ConfigError(f"There is no source {source}; configured: {', '.join(sources)}.")
    key = CallKey(SourceName(source), CallRef(call))
    async with aclosing(Store(settings.redis_url.get_secret_value())) as store:
        state = await store.read(key)
    if state is None:
        raise CallfoldError(f"Redis has no call {key}: it never came, or it was kept no longer than CALLFOLD_RETAIN_SECONDS.")
    derived = derive(key, state.facts, settings.policy)
    timeline = await _timeline(settings, sources, key, derived)
    told = {
        "call": str(key),
        "status": derived.status,
        "why": why(derived, state),
        "published_revision": state.revision,
        "record": call_record(derived, state.revision or 1) if derived.closing else None,
        "legs": [asdict(leg) | {"recording_url": None} for leg in derived.legs],
        "facts": {name: "***" if f":{URL}" in name else mask_credentials(value) for name, value in sorted(state.facts.items())},
        "timeline": timeline,
    }
    sys.stdout.write(orjson.dumps(told).decode() + "\n" if as_json else _text(told))
    return 0


def why(call: Call, state: Folded) -> str:
    """Say why a call is in its state, and what would change it."""
    if call.closing:
        published = f"published as revision {state.revision}" if state.revision else "about to be published"
        return f"complete: {call.closing.outcome}, by {call.closing.reason}; {published}"
    waiting = [
        f"{_SIDES.get(leg.call_type, 'the')} {'hangup' if leg.was_answered else 'end'}" for leg in call.legs if not leg.is_over
    ]
    waiting += [f"what {_SIDES.get(leg.call_type, 'the')} hangup meant" for leg in call.legs if leg.is_ambiguous]
    if not any(leg.call_type == "API" for leg in call.legs) and call.request_id is not None:
        waiting.append("any callback of the agent's leg")
    return f"waiting for {' and '.join(waiting) or 'what may still come'}, closes at {call.look_at}"


async def _timeline(settings: Settings, sources: Sources, key: CallKey, call: Call) -> list[dict[str, str]]:
    """Read every raw event of the call from the journal, in the order the broker got them."""
    rows = []
    since = datetime.fromisoformat(min(call.started_at, *(leg.first_seen_at for leg in call.legs), call.last_event_at)) - _BEFORE
    async with journal_until_now(settings, since, stream=CALLBACKS_JOURNAL) as deliveries:
        async for delivery in deliveries:
            rows += [
                _row(event)
                for event in decode(delivery.body)
                if not isinstance(event, Undecodable) and _is_of(event, key, sources)
            ]
    return rows


def _is_of(event: RawEvent, key: CallKey, sources: Sources) -> bool:
    if event.source != key.source:
        return False
    try:
        return facts_of(event, sources[key.source].adapter)[0] == key
    except (InvalidCallbackError, ValueError, OverflowError):
        return False


def _row(event: RawEvent) -> dict[str, str]:
    what = event.query if isinstance(event, CallbackEvent) else encode(event).decode()
    return {
        "received_at": event.received_at,
        "kind": type(event).__name__.removesuffix("Event").lower(),
        "what": mask_credentials(what),
    }


def _text(told: dict[str, object]) -> str:
    lines = [f"{told['call']}  {told['status']}", f"{told['why']}", ""]
    if told["record"]:
        lines += [orjson.dumps(told["record"], option=orjson.OPT_INDENT_2).decode(), ""]
    lines.append("timeline (as received)")
    timeline = told["timeline"]
    if isinstance(timeline, list):
        lines += [f"  {row['received_at']}  {row['kind']:<8}  {row['what']}" for row in timeline]
    lines.append("facts")
    facts = told["facts"]
    if isinstance(facts, dict):
        lines += [f"  {name:<52}  {value}" for name, value in facts.items()]
    return "\n".join(lines) + "\n"
