"""The frames of a publish that Callfold writes itself are those of the library."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from pamqp import frame
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from shared.amqp.batch_publish import _header_frame, _publish_frame
from shared.amqp.publisher import Message

CHANNELS = st.integers(1, 2000)
TEXTS = st.text(max_size=60)  # at most 255 bytes
EXCHANGES = st.text("abc.", max_size=9)
HEADERS = st.dictionaries(st.text(min_size=1, max_size=9), st.integers(0, 9) | st.text(max_size=9), max_size=2)
MESSAGES = st.builds(
    Message, EXCHANGES, TEXTS, st.binary(max_size=300), TEXTS, TEXTS, st.just({}) | HEADERS, st.none() | st.integers(0, 10**9)
)
PERSISTENT = 2


@given(MESSAGES, CHANNELS)
def test_a_header_frame_is_that_of_the_library(message: Message, channel: int) -> None:
    properties = Basic.Properties(
        content_type=message.content_type,
        delivery_mode=PERSISTENT,
        message_id=message.message_id,
        headers={**message.headers} or None,
        expiration=None if message.expires_ms is None else str(message.expires_ms),
    )
    expected = frame.marshal(ContentHeader(properties=properties, body_size=len(message.body)), channel)
    assert _header_frame(message, channel) == expected


@given(MESSAGES, CHANNELS)
def test_the_frame_that_begins_a_publish_is_that_of_the_library_and_its_channel(message: Message, channel: int) -> None:
    publish = Basic.Publish(exchange=message.exchange, routing_key=message.routing_key, mandatory=True)
    for number in (channel, channel + 1, channel):
        assert _publish_frame(message.exchange, message.routing_key, number) == frame.marshal(publish, number)
