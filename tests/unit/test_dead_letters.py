"""Dead letters: the documentation tells every reason there is and no other, and the headers keep their names and bounds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import orjson
import pytest

from console.dead_letters.of_call import is_of_call
from console.dead_letters.original_message import original_message
from console.dead_letters.prospects import why_it_comes_back
from console.dead_letters.queue import DeadLetterQueue, QueuedDeadLetter, decode
from console.dead_letters.redrive_or_drop import SettleRequest
from shared.amqp.dead_letters import DeadLetterReason, dead_letter_headers
from shared.amqp.delivery import Delivery
from shared.archive.storage import Archive
from shared.config.sources import load_sources
from shared.domain.ids import CallKey, CallRef, SourceName
from shared.domain.raw_event import Undecodable, join
from shared.domain.raw_event import decode as raw_events
from shared.domain.recording_reasons import Reason
from shared.domain.unread_body import UnreadCallback
from shared.runtime.audit import Action

ROOT = Path(__file__).resolve().parents[2]
TABLE = (ROOT / "docs" / "dead-letters.md").read_text("utf-8")


def test_the_documentation_tells_every_reason_and_no_other() -> None:
    told = re.findall(r"^\| (?:recordings: |webhooks: )?`(\w+)`", TABLE, re.MULTILINE)
    tried_in_vain = {told_reason for told_reason in told if told_reason in set(Reason)} - {DeadLetterReason.UNKNOWN_SOURCE}
    assert tried_in_vain == {Reason.NOT_FOUND}, "the row that leads to all others"
    assert set(told) - tried_in_vain == set(DeadLetterReason)


@pytest.mark.parametrize("reason", [DeadLetterReason.FOLD_FAILED, Reason.LOGIN_PAGE, "of an older release"])
def test_a_letter_tells_its_reason_as_plain_text_and_a_detail_that_fits_in_a_frame(reason: str) -> None:
    headers = dead_letter_headers(reason, "x" * 200_000, "2026-11-23T07:44:00.000000Z")
    assert headers == {"reason": str(reason), "detail": "x" * 500, "first_seen": "2026-11-23T07:44:00.000000Z"}
    assert {type(value) for value in headers.values()} == {str}


@pytest.mark.parametrize(
    ("headers", "is_carried"),
    [
        ({"reason": "not_found"}, False),
        ({"reason": "job_failed"}, True),
        ({"may_have_stored": 1, "reason": "not_found"}, True),
        ({"x-death": [{"reason": "delivery_limit"}]}, True),
    ],
)
async def test_a_redriven_recording_that_may_be_stored_already_says_so(
    tmp_path: Path,
    headers: dict[str, object],
    is_carried: bool,  # noqa: FBT001
) -> None:
    delivery = Delivery(b"no job", {"message_id": "x", "round": 3, **headers}, "", 1, cast("Any", None))
    message = await original_message(DeadLetterQueue.RECORDINGS, decode(delivery), Archive(f"file://{tmp_path}"))
    assert message.headers == {"round": 4} | ({"may_have_stored": 1} if is_carried else {})


def test_a_body_that_cannot_be_understood_is_shown_as_text_and_never_redriven() -> None:
    unread = UnreadCallback(SourceName("acme"), "2026-11-23T07:44:00.000000Z", "a=1", b"<a password='x1'/>\xff", "text/xml")
    body = join([unread.encode()])
    letter = decode(Delivery(body, {"message_id": "x", "reason": "unreadable_body"}, "", 1, cast("Any", None)))
    (shown,) = orjson.loads(str(letter.describe(with_body=True)["body"]))
    assert (shown["source"], shown["body"]) == ("acme", "<a password='***'/>\\xff")
    assert letter.sources == {"acme"}
    for oldest in ("", "2026-11-23T07:44:00.000000Z"):
        assert not SettleRequest(Action.REDRIVE, "cli:me", oldest=oldest).allows(letter)
    assert SettleRequest(Action.DROP, "cli:me").allows(letter)
    (again,) = raw_events(body)  # a worker keeps it as it is
    assert isinstance(again, Undecodable)
    assert again.body == body


def _dead_letter(body: bytes, reason: str = "invalid_callback", detail: str = "x") -> QueuedDeadLetter:
    return decode(Delivery(body, {"message_id": "x", "reason": reason, "detail": detail}, "", 1, cast("Any", None)))


def _event(**changed: object) -> bytes:
    event = {"v": 1, "kind": "callback", "source": "default", "received_at": "2026-11-23T07:44:00.000000Z"}
    return orjson.dumps([event | {"query": "CallType=API&Event=pickup&CallID=77&RequestID=513"} | changed])


def _annotation(call: str) -> bytes:
    named = {"call": call, "id": "0" * 32, "type": "note", "by": "kasper", "body": {"text": "513"}}
    return _event(kind="annotation", **named)


@pytest.mark.parametrize(
    ("body", "reason", "expected"),
    [
        (_event(), "invalid_callback", ""),
        (_event(query="a=1"), "invalid_callback", "invalid_callback: "),
        (_event(source="other"), "unknown_source", "unknown_source: no source other is configured"),
        (_event(v=2), "undecodable", "undecodable: "),
        (b"{", "undecodable", "undecodable: "),
        (b"[" + _event()[1:-1] + b"," + _event(query="a=1")[1:], "delivery_limit", "invalid_callback: "),
        (_event(), "too_many_legs", "too_many_legs: it is still of call default/513"),
        (_event(query="CallType=API&Event=pickup&CallID=77"), "too_many_legs", ""),
        (_annotation("513"), "too_many_annotations", "too_many_annotations: it is still of call default/513"),
        (_annotation("514"), "too_many_annotations", ""),
    ],
)
def test_a_redrive_knows_what_would_come_back(body: bytes, reason: str, expected: str) -> None:
    detail = "default/513 has all the legs that a call can have"
    found = why_it_comes_back(DeadLetterQueue.CALLBACKS, _dead_letter(body, reason, detail), load_sources(None))
    assert (found.startswith(expected), bool(found)) == (True, bool(expected)), found


@pytest.mark.parametrize(
    ("body", "call", "expected"),
    [
        (_event(query="CallType=?&RequestID=513"), "513", True),
        (_annotation("513"), "513", True),
        (_annotation("514"), "513", False),
        (_event(query="requestid=%20513"), "513", True),
        (_event(query="RequestID=0513"), "513", True),
        (_event(query="RequestID=5130&CallID=513"), "513", False),
        (_event(query="CallID=513"), "call-513", True),
        (_event(source="other", query="RequestID=513"), "513", False),
        (_event(kind="dial", request_id=513, fields={}), "513", True),
        (b"{RequestID=513", "513", False),
    ],
)
def test_dead_letters_of_a_call_are_found_by_their_values(body: bytes, call: str, expected: bool) -> None:  # noqa: FBT001
    assert is_of_call(body, CallKey(SourceName("default"), CallRef(call))) == expected


@pytest.mark.parametrize(
    ("headers", "endpoint", "routing_key"),
    [
        (
            {"endpoint": "crm", "routing_key": "call.completed.acme.answered", "attempts": 11},
            "crm",
            "call.completed.acme.answered",
        ),
        ({"x-death": [{"queue": "forward.crm", "reason": "maxlen", "routing-keys": ["call.a.b.c"]}]}, "crm", "call.a.b.c"),
        ({"x-death": [{"queue": "recordings", "reason": "maxlen", "routing-keys": ["x"]}]}, None, "x"),
        ({}, None, ""),
    ],
)
async def test_a_redriven_event_begins_again_in_the_queue_of_its_webhook(
    tmp_path: Path, headers: dict[str, object], endpoint: str | None, routing_key: str
) -> None:
    body = orjson.dumps({"id": "acme/513/1", "source": "/callfold/acme"})
    letter = decode(Delivery(body, {"message_id": "x", **headers}, "", 1, cast("Any", None)))
    assert (letter.endpoint, letter.routing_key, letter.sources) == (endpoint, routing_key, {"acme"})
    message = await original_message(DeadLetterQueue.FORWARD, letter, Archive(f"file://{tmp_path}"))
    assert (message.routing_key, message.body) == (f"forward.{endpoint or ''}", body)
    assert message.headers == {"routing_key": routing_key}, "no attempt is counted"
    known = SettleRequest(Action.REDRIVE, "cli:me", endpoints=frozenset({"crm"}))
    assert known.allows(letter) == (endpoint == "crm")


def test_a_queue_of_dead_letters_has_two_names() -> None:
    assert DeadLetterQueue("forward.dead") is DeadLetterQueue("forward") is DeadLetterQueue.FORWARD
    with pytest.raises(ValueError, match="other"):
        DeadLetterQueue("other.dead")
