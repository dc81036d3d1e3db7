"""The ingress most people would write: one confirmed, persistent publish to a quorum queue per request.

It has no access log, publisher confirms and a long-lived robust connection. It uses the standard event loop, as most such
programs do, or uvloop with NAIVE_UVLOOP=1 (`bench/run.py --naive-uvloop`).
"""

from __future__ import annotations

import os

import aio_pika
import orjson
import uvloop
from aiohttp import web

QUEUE = "naive.callbacks"
CONNECTION = web.AppKey("connection", aio_pika.abc.AbstractRobustConnection)
EXCHANGE = web.AppKey("exchange", aio_pika.abc.AbstractExchange)


async def callback(request: web.Request) -> web.Response:
    event = {"source": request.match_info["source"], "params": dict(request.query)}
    message = aio_pika.Message(orjson.dumps(event), delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
    await request.app[EXCHANGE].publish(message, routing_key=QUEUE, timeout=5)
    return web.Response(text="ok")


async def connect(app: web.Application) -> None:
    app[CONNECTION] = await aio_pika.connect_robust(os.environ["AMQP_URL"])
    channel = await app[CONNECTION].channel(publisher_confirms=True)
    await channel.declare_queue(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
    app[EXCHANGE] = channel.default_exchange


async def close(app: web.Application) -> None:
    await app[CONNECTION].close()


def main() -> None:
    if os.environ.get("NAIVE_UVLOOP"):
        uvloop.install()
    app = web.Application()
    app.router.add_get("/callbacks/{source}", callback)
    app.on_startup.append(connect)
    app.on_cleanup.append(close)
    web.run_app(app, host="127.0.0.1", port=int(os.environ["PORT"]), access_log=None, print=None)


if __name__ == "__main__":
    main()
