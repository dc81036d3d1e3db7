"""Contexts in headers: what is written is read, what is damaged is nothing, and joined messages keep theirs."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ingress.outgoing_message import OutgoingMessage
from ingress.spool_drain import joined
from ingress.traced_callback import TracedEvent
from shared.amqp.topology import CALLBACKS
from shared.domain.ids import SourceName
from shared.domain.raw_event import CallbackEvent, encode
from shared.tracing.contexts import (
    CREATION_CONTEXTS,
    SpanId,
    TraceContext,
    TraceId,
    pack,
    parse_context,
    root_of,
    unpack,
)
from shared.tracing.spans import recording_with
from tests.helpers.spans import recorded

CONTEXTS = st.builds(
    TraceContext,
    st.integers(1, (1 << 128) - 1).map(TraceId),
    st.integers(1, (1 << 64) - 1).map(SpanId),
)


@given(st.dictionaries(st.integers(0, 499), CONTEXTS, max_size=20))
@example(dict.fromkeys(range(500), root_of("acme/513")))
def test_packed_contexts_are_unpacked_and_fit_in_a_frame(contexts: Mapping[int, TraceContext]) -> None:
    packed = pack(contexts)
    assert unpack(packed) == contexts
    assert len(packed) <= 500 * 26 * 4 / 3 + 4 < 64 << 10


@given(CONTEXTS)
def test_a_context_is_read_as_it_is_written(context: TraceContext) -> None:
    assert parse_context(str(context)) == context


@pytest.mark.parametrize(
    "header", [None, 7, "", "é", "AAAA", "=", "*", "A" * 40, pack(dict.fromkeys(range(1001), root_of("acme/1")))], ids=repr
)
def test_a_damaged_header_has_no_contexts(header: object) -> None:
    assert unpack(header) == {}


@pytest.mark.parametrize(
    "text",
    [
        None,
        b"00",
        "",
        f"00-{'0' * 32}-{'1' * 16}-01",
        f"00-{'1' * 32}-{'0' * 16}-01",
        f"00-{'1' * 32}-{'1' * 16}-00",
        f"00-{'A' * 32}-{'1' * 16}-01",
        f"00-{'1' * 32}-{'1' * 16}-01\n",
    ],
)
def test_what_is_no_sampled_context_is_none(text: object) -> None:
    assert parse_context(text) is None


def test_joined_messages_of_the_spool_keep_the_contexts_at_their_new_positions() -> None:
    def event(number: int) -> bytes:
        encoded = encode(CallbackEvent(SourceName("acme"), "2026-11-23T07:44:00.123456Z", f"n={number}"))
        if number % 2:
            return encoded
        traced = TracedEvent(encoded)
        traced.context = root_of(f"acme/{number}")
        return traced

    with recorded() as spans, recording_with(spans.recorder):
        rows = [(first, OutgoingMessage.of_callbacks([event(first), event(first + 1)])) for first in (1, 3, 5)]
    ((ids, message),) = joined(rows)
    assert (ids, message.exchange) == ([1, 3, 5], CALLBACKS)
    assert unpack(message.headers[CREATION_CONTEXTS]) == {1: root_of("acme/2"), 3: root_of("acme/4"), 5: root_of("acme/6")}


def test_messages_have_no_header_if_tracing_is_off() -> None:
    traced = TracedEvent(b"{}")
    traced.context = root_of("acme/1")
    assert OutgoingMessage.of_callbacks([traced]).headers == {}
