"""A complete consumer of completed and amended calls: durable queue, deduplication by id, ack last, clean stop.

    AMQP_URL=amqp://guest:guest@127.0.0.1:5672/ python docs/examples/consumer.py [--limit N]

It stores the ids of handled events in consumer.sqlite (or $CONSUMER_DB), in the same transaction as its work. An event that is
delivered twice, by a redelivery or a replay, is therefore handled once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sqlite3
import sys
from typing import Any

import aio_pika

SCHEMA = """
create table if not exists seen (id text primary key);
create table if not exists calls (source text, call text, request_id integer, revision integer, outcome text, talk_seconds real,
                                  primary key (source, call));
"""


def handle(database: sqlite3.Connection, event: dict[str, Any]) -> bool:
    """Do the work of one event; return False if it was done before."""
    with database:  # one transaction for the work and the id
        if database.execute("insert or ignore into seen values (?)", (event["id"],)).rowcount == 0:
            return False
        data = event["data"]
        row = {name: data[name] for name in ("source", "request_id", "revision", "outcome", "talk_seconds")}
        # The subject identifies the call. request_id is null if the dial API did not start it.
        # A lower revision that arrives late must not overwrite a higher one.
        database.execute(
            "insert into calls values (:source, :call, :request_id, :revision, :outcome, :talk_seconds) "
            "on conflict do update set revision = excluded.revision, outcome = excluded.outcome, "
            "talk_seconds = excluded.talk_seconds where excluded.revision > calls.revision",
            row | {"call": event["subject"]},
        )
        return True


async def connect(url: str) -> aio_pika.abc.AbstractRobustConnection:
    """Connect, without retries at the start, because a failure then is usually a wrong URL."""
    logging.getLogger("aiormq.connection").setLevel(logging.CRITICAL)  # it also raises what it logs
    try:
        return await aio_pika.connect_robust(url, timeout=5)
    except (aio_pika.exceptions.ProbableAuthenticationError, aio_pika.exceptions.AuthenticationError):
        sys.exit("RabbitMQ refused the user or password of AMQP_URL.")
    except OSError as error:  # includes timeouts and connection errors of the library
        sys.exit(f"RabbitMQ cannot be reached ({type(error).__name__}). Check AMQP_URL.")


async def consume(limit: int | None) -> None:
    database = sqlite3.connect(os.environ.get("CONSUMER_DB", "consumer.sqlite"))
    database.executescript(SCHEMA)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    handled = 0

    async def on_message(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        nonlocal handled
        event = json.loads(message.body)
        if handle(database, event):
            print(event["id"], event["data"]["outcome"], event["data"]["talk_seconds"], flush=True)
            handled += 1
        await message.ack()  # last, because the broker deletes an acked message
        if limit is not None and handled >= limit:
            stop.set()

    connection = await connect(os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/"))
    async with connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=50)
        try:
            exchange = await channel.get_exchange("calls")
        except aio_pika.exceptions.ChannelNotFoundEntity:
            sys.exit("RabbitMQ has no exchange `calls`. Start a Callfold worker first.")
        queue = await channel.declare_queue("example.calls", durable=True, arguments={"x-queue-type": "quorum"})
        await queue.bind(exchange, "call.#")  # completed and amended
        await queue.consume(on_message)
        print("waiting for calls; Ctrl-C stops", flush=True)
        await stop.wait()
    database.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, help="number of calls after which to stop (default: no limit)")
    asyncio.run(consume(parser.parse_args().limit))
