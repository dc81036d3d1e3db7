"""The worker most people would write: one message, one Redis script, one ack. Complete calls are published with a confirm.

It uses the standard event loop, or uvloop with NAIVE_UVLOOP=1. For each call it publishes as much as Callfold does: one call
event and two recording jobs.
"""

from __future__ import annotations

import asyncio
import os

import aio_pika
import orjson
import uvloop
from redis.asyncio import Redis

QUEUE = "naive.callbacks"
SCRIPT = """
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
if redis.call('HLEN', KEYS[1]) == 4 and redis.call('HSETNX', KEYS[2], 'done', '1') == 1 then
    return redis.call('HGETALL', KEYS[1])
end
return false
"""


async def main() -> None:
    redis = Redis.from_url(os.environ["REDIS_URL"])
    fold = redis.register_script(SCRIPT)
    connection = await aio_pika.connect_robust(os.environ["AMQP_URL"])
    channel = await connection.channel(publisher_confirms=True)
    await channel.set_qos(prefetch_count=200)
    queue = await channel.declare_queue(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
    calls = await channel.declare_exchange("naive.calls", "topic", durable=True)
    jobs = await channel.declare_queue("naive.jobs", durable=True, arguments={"x-queue-type": "quorum"})
    done = await channel.declare_queue("naive.completed", durable=True, arguments={"x-queue-type": "quorum"})
    await done.bind(calls, "#")

    def message(body: object) -> aio_pika.Message:
        return aio_pika.Message(orjson.dumps(body), delivery_mode=aio_pika.DeliveryMode.PERSISTENT)

    async def on_message(incoming: aio_pika.abc.AbstractIncomingMessage) -> None:
        params = orjson.loads(incoming.body)["params"]
        key = f"naive:{{{params['RequestID']}}}"
        facts = await fold(keys=[key, key + ":done"], args=[f"{params['CallType']}:{params['Event']}", incoming.body])
        if facts:
            record = {"request_id": params["RequestID"], "facts": [fact.decode() for fact in facts]}
            await calls.publish(message(record), routing_key="call.completed")
            await channel.default_exchange.publish(message(record), routing_key=jobs.name)
            await channel.default_exchange.publish(message(record), routing_key=jobs.name)
        await incoming.ack()

    await queue.consume(on_message)
    await asyncio.Event().wait()


if __name__ == "__main__":
    if os.environ.get("NAIVE_UVLOOP"):
        uvloop.install()
    asyncio.run(main())
