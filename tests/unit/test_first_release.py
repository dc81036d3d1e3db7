"""What the first release writes for other processes, this one reads, and the other way round: names, raw messages, outboxes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from shared.amqp.topology import topology
from shared.domain.facts import facts_of
from shared.domain.ids import CallKey, CallRef, SourceName
from shared.domain.raw_event import CallbackEvent, decode, encode, join
from shared.state.keys import PLAIN_KEYS, partition, watermark_key
from tests.helpers.first_release import NoHistoryError, runs, unpack_first_release
from tests.helpers.folding import ADAPTER
from tests.helpers.servers import RETRY_S, VENDOR_LINES
from worker.folding.outbox import read_outbox

_CALLS = [CallKey(SourceName("acme"), CallRef(call)) for call in ("513", "513.2", "call-1000000087849")]
_EVENT = CallbackEvent(SourceName("acme"), "2026-11-23T07:44:00.123456Z", VENDOR_LINES[0])
# Runs with the code of the first release: it prints what it would write, and what it reads of what this release wrote.
_IN_FIRST_RELEASE = """
import sys
import orjson
from shared.amqp.topology import topology
from shared.domain.ids import CallKey
from shared.domain.raw_event import CallbackEvent, decode, encode, join
from shared.state.keys import facts_key, open_key, partition, publication_key, recent_key
from shared.state import watermark
from worker.folding.outbox import read_outbox
given = orjson.loads(sys.stdin.buffer.read())
calls = [CallKey(*call) for call in given["calls"]]
event = CallbackEvent(*given["event"])
sys.stdout.buffer.write(orjson.dumps({
    "keys": [[partition(key), facts_key(partition(key), key), publication_key(partition(key), key), open_key(partition(key)),
              recent_key(partition(key))] for key in calls],
    "watermark": [watermark._MEMBERS, watermark._ROUNDS, watermark._SPOOLS],
    "queues": {queue.name: dict(queue.arguments) for queue in topology(given["retry_s"]).queues},
    "written": join([encode(event)]).decode(),
    "read": [[each.source, each.received_at, each.query] for each in decode(given["written"].encode())],
    "outbox": [[each.exchange, each.routing_key, each.message_id, each.body.decode()] for each in read_outbox(given["outbox"].encode())],
}))
"""
_OUTBOX = orjson.dumps([["calls", "call.completed.acme.answered", "acme/513/1", "application/cloudevents+json", "{}"]])


def test_both_releases_name_and_write_alike_what_they_share(tmp_path: Path) -> None:
    try:
        code = unpack_first_release(tmp_path)
    except NoHistoryError as error:
        pytest.skip(str(error))
    written = join([encode(_EVENT)])
    given = {"calls": [[*key] for key in _CALLS], "event": [_EVENT.source, _EVENT.received_at, _EVENT.query], "retry_s": RETRY_S}
    done = subprocess.run(
        [sys.executable, "-c", _IN_FIRST_RELEASE],
        input=orjson.dumps({**given, "written": written.decode(), "outbox": _OUTBOX.decode()}),
        capture_output=True,
        cwd=tmp_path,
        env=os.environ | runs(code),
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    first = orjson.loads(done.stdout)
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
