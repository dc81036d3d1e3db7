"""What the first release writes for other processes, this one reads, and the other way round: names, raw messages, outboxes."""

from __future__ import annotations

from pathlib import Path

import orjson

from shared.amqp.topology import topology
from shared.domain.facts import facts_of
from shared.domain.ids import CallKey, CallRef, SourceName
from shared.domain.raw_event import CallbackEvent, decode, encode, join
from shared.state.keys import PLAIN_KEYS, partition, watermark_key
from tests.helpers.folding import ADAPTER
from tests.helpers.servers import RETRY_S, VENDOR_LINES
from worker.folding.outbox import read_outbox

_CALLS = [CallKey(SourceName("acme"), CallRef(call)) for call in ("513", "513.2", "call-1000000087849")]
_EVENT = CallbackEvent(SourceName("acme"), "2026-11-23T07:44:00.123456Z", VENDOR_LINES[0])
# What the code of the first release wrote of these calls and this event, and what it read of `given`, which this release wrote.
_FIRST = orjson.loads(Path(__file__).with_name("first_release.json").read_bytes())
_OUTBOX = orjson.dumps([["calls", "call.completed.acme.answered", "acme/513/1", "application/cloudevents+json", "{}"]])


def test_both_releases_name_and_write_alike_what_they_share() -> None:
    first = _FIRST
    assert first["given"] == {"written": join([encode(_EVENT)]).decode(), "outbox": _OUTBOX.decode()}
    numbered = [(partition(key), key) for key in _CALLS]
    keys = PLAIN_KEYS
    assert first["keys"] == [
        [number, keys.facts(number, key), keys.publication(number, key), keys.open(number), keys.recent(number)]
        for number, key in numbered
    ]
    assert first["watermark"] == [watermark_key(what) for what in ("members", "rounds", "spools")]
    assert first["read"] == [[_EVENT.source, _EVENT.received_at, _EVENT.query]]
    (event,) = decode(first["written"].encode())
    assert isinstance(event, CallbackEvent)
    assert facts_of(event, ADAPTER) == facts_of(_EVENT, ADAPTER)
    outbox = read_outbox(_OUTBOX)
    assert first["outbox"] == [[each.exchange, each.routing_key, each.message_id, each.body.decode()] for each in outbox]
    # Sizes and ages are policies now: a queue that the first release declared is accepted with its arguments.
    accepted = {queue.name: {**queue.arguments, **queue.earlier_arguments} for queue in topology(RETRY_S).queues}
    assert {name: accepted[name] for name in first["queues"]} == first["queues"]
