"""A login is no answered call: not in the metrics, nor in the counters and curves of the live page."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import orjson

from console.live import feed
from console.live.feed import PublishedEvent
from console.live.monitor import count_completions
from console.page.live_view import live_view
from console.page.render import live_fragment
from shared import metrics
from shared.amqp.delivery import Delivery
from shared.amqp.publisher import Message
from shared.domain.ids import CallKey, CallRef, SourceName
from tests.helpers.folding import Published, at, callback
from tests.helpers.page_fakes import snapshot
from worker.folding.claims import _report_published
from worker.folding.outbox import read_outbox, write_outbox


def _published(call_type: str, more: str = "") -> Message:
    """Publish an answered call of one type."""
    history = Published()
    events = [callback(0, f"CallType={call_type}&CallID=77&Event={event}{more}") for event in ("pickup", "hangup")]
    if more:
        events += [callback(0, f"CallType=API&CallID=1&Event={event}&RequestID=513") for event in ("pickup", "hangup")]
        events += [callback(1, f"CallType=Outgoing&CallID=2&Event={event}&RequestID=513") for event in ("pickup", "hangup")]
    call = history.fold(events)
    assert call is not None
    return read_outbox(write_outbox(call, 1, []))[0]


AT = at(0)
LOGIN, INCOMING = _published("Login"), _published("Incoming")
PAIR = _published("Login", "&RequestID=513")


def test_the_record_of_a_login_tells_its_type_and_no_end_of_a_conversation() -> None:
    data = orjson.loads(LOGIN.body)["data"]
    assert (data["call_type"], data["outcome"], data["ended_by"]) == ("Login", "answered", None)
    assert (data["talk_seconds"], orjson.loads(INCOMING.body)["data"]["talk_seconds"]) == (None, 0)
    assert [leg["call_type"] for leg in orjson.loads(PAIR.body)["data"]["other_legs"]] == ["Login"]


def test_a_metric_counts_a_login_as_such() -> None:
    source = SourceName("logins")
    messages = {"1": LOGIN, "2": INCOMING, "3": PAIR}
    _report_published({CallKey(source, CallRef(name)): [message] for name, message in messages.items()})
    counted = {outcome: metrics.CALLS_COMPLETED.labels(source, outcome)._value.get() for outcome in ("answered", "login")}
    assert counted == {"answered": 2, "login": 1}


def _event(offset: int, message: Message) -> PublishedEvent:
    body = orjson.dumps(orjson.loads(message.body) | {"time": AT})
    delivery = cast("Delivery", SimpleNamespace(body=body, offset=offset, routing_key=message.routing_key))
    (event,) = feed._published(delivery)
    return event


def test_the_live_page_counts_a_login_separately() -> None:
    events = [_event(number, message) for number, message in enumerate((LOGIN, INCOMING, LOGIN, PAIR))]
    counted = count_completions(events, AT)
    assert (counted.by_outcome, counted.by_second, counted.logins) == ({"answered": 2}, {AT[:19]: 2}, 2)
    shown = replace(snapshot(), completions=counted.by_outcome, logins=counted.logins)
    assert live_view(shown).completed == 2
    assert "2 logins" in live_fragment(shown)
