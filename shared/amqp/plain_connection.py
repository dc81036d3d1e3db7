"""One plain AMQP connection, without reconnection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import aio_pika
from pamqp.common import FieldTable
from yarl import URL

from callfold_client import lenient_decoding
from shared.amqp import delivery_frames
from shared.amqp.connection_errors import LOST

lenient_decoding.install()
delivery_frames.install()

CONNECT_TIMEOUT_S = 5
CLOSE_TIMEOUT_S = 2


@asynccontextmanager
async def plain_connection(url: URL, properties: FieldTable | None = None) -> AsyncIterator[aio_pika.Connection]:
    """Open a connection and close it in any case: a connection that is only dropped closes itself in an arbitrary thread."""
    connection = aio_pika.Connection(url, client_properties=properties)
    try:
        try:
            await connection.connect(timeout=CONNECT_TIMEOUT_S)
        except StopAsyncIteration as error:  # the server closed before the first frame; `is_lost` would not recognize this
            raise ConnectionError("the server closed the connection before it answered") from error
        yield connection
    finally:
        try:
            with suppress(*LOST):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await connection.close()
        finally:
            await connection.close()  # if that failed, the second close returns at once: it writes nothing
