"""The upper limit: an aiohttp handler that does nothing."""

from __future__ import annotations

import os

import uvloop
from aiohttp import web


async def callback(_: web.Request) -> web.Response:
    return web.Response(text="ok")


if __name__ == "__main__":
    uvloop.install()
    app = web.Application()
    app.router.add_get("/callbacks/{source}", callback)
    web.run_app(app, host="127.0.0.1", port=int(os.environ["PORT"]), access_log=None, print=None)
