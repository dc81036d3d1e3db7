"""Deliveries that are read straight from the socket's bytes are those that the library would read, however the bytes arrive."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest
from aiormq.exceptions import AMQPConnectionError, InvalidFrameError
from pamqp import frame
from pamqp.body import ContentBody
from pamqp.commands import Basic, Queue
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from shared.amqp import delivery_frames
from shared.amqp.delivery_frames import StreamFrames, StreamMessage

TAG = "reader"


def delivery(tag: int, body: bytes, headers: dict[str, object], *, consumer: str = TAG, piece: int = 7) -> bytes:
    """Return the frames of a delivery; its body is cut in pieces."""
    properties = Basic.Properties(content_type="application/json", message_id=str(tag), headers=headers or None)  # type: ignore[arg-type]
    parts = [body[at : at + piece] for at in range(0, len(body), piece)]
    frames: list[Basic.Deliver | ContentHeader | ContentBody] = [
        Basic.Deliver(consumer, tag, redelivered=False, exchange="calls", routing_key="call.completed.acme"),
        ContentHeader(properties=properties, body_size=len(body)),
        *map(ContentBody, parts),
    ]
    return b"".join(frame.marshal(each, 1) for each in frames)


async def read(sent: bytes, sizes: Sequence[int]) -> tuple[list[StreamMessage], list[object]]:
    """Return the deliveries and the other frames of some bytes, which arrive in parts of these sizes, then the end."""
    messages: list[StreamMessage] = []
    others: list[object] = []
    frames, stream = StreamFrames(messages.append), asyncio.StreamReader()
    frames.expect(TAG)
    with delivery_frames.used_by(frames):
        receiver = delivery_frames._receiver_of(stream)

    async def take() -> None:
        try:
            while True:
                others.append((await receiver.get_frame())[2])
        except (AMQPConnectionError, StopAsyncIteration):
            pass

    taking = asyncio.create_task(take())
    for size in sizes:
        stream.feed_data(sent[:size])
        sent = sent[size:]
        await asyncio.sleep(0)
    stream.feed_data(sent)
    stream.feed_eof()
    await taking
    return messages, [each for each in others if not isinstance(each, Heartbeat)]


@pytest.mark.parametrize("seed", range(20))
async def test_deliveries_are_read_wherever_their_bytes_are_cut(seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 - repeatable on purpose
    expected, sent = [], b""
    for tag in range(1, 30):
        headers: dict[str, object] = {"x-stream-offset": 1_000_000 + tag} if rng.random() < 0.9 else {}
        headers |= {"callfold-summary": "Jørgen " * rng.randrange(50)} if rng.random() < 0.3 else {}
        body = rng.randbytes(rng.randrange(40))
        sent += delivery(tag, body, headers)
        expected.append(StreamMessage(tag, "call.completed.acme", headers, body))
        if rng.random() < 0.3:
            sent += frame.marshal(Queue.DeclareOk("q", 1, 1), 1) + delivery(tag, b"of another", {}, consumer="other")
    sizes = [rng.randrange(1, 60) for _ in range(rng.randrange(200))]
    messages, others = await read(sent, sizes)
    assert messages == expected
    assert {type(each).__name__ for each in others} <= {"DeclareOk", "Deliver", "ContentHeader", "ContentBody"}
    assert sum(isinstance(each, Queue.DeclareOk) for each in others) == sent.count(frame.marshal(Queue.DeclareOk("q", 1, 1), 1))


async def test_after_deliveries_the_library_sees_that_the_server_lives() -> None:
    frames, stream = StreamFrames(lambda _: None), asyncio.StreamReader()
    frames.expect(TAG)
    with delivery_frames.used_by(frames):
        receiver = delivery_frames._receiver_of(stream)
    stream.feed_data(delivery(1, b"[]", {}))
    assert isinstance((await receiver.get_frame())[2], Heartbeat)


async def test_while_a_long_delivery_arrives_the_library_sees_that_the_server_lives() -> None:
    messages: list[StreamMessage] = []
    frames, stream = StreamFrames(messages.append), asyncio.StreamReader()
    frames.expect(TAG)
    with delivery_frames.used_by(frames):
        receiver = delivery_frames._receiver_of(stream)
    sent = delivery(1, b"[]" * 100, {})
    stream.feed_data(sent[:200])
    assert isinstance((await receiver.get_frame())[2], Heartbeat)
    assert not messages
    stream.feed_data(sent[200:])
    assert isinstance((await receiver.get_frame())[2], Heartbeat)
    assert [len(message.body) for message in messages] == [200]


async def test_what_is_no_frame_ends_the_connection() -> None:
    frames, stream = StreamFrames(lambda _: None), asyncio.StreamReader()
    with delivery_frames.used_by(frames):
        receiver = delivery_frames._receiver_of(stream)
    stream.feed_data(delivery(1, b"[]", {})[:-1] + b"\x00")
    for _ in range(2):
        await receiver.get_frame()
    with pytest.raises(InvalidFrameError):
        await receiver.get_frame()


async def test_other_connections_are_read_by_the_library() -> None:
    assert type(delivery_frames._receiver_of(asyncio.StreamReader())).__name__ == "FrameReceiver"
