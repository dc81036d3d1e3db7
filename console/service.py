"""The console process: the private HTTP port over the whole system; the dial API and the page come here."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from aiohttp import web

from shared.errors import ConfigError, StoreUnavailableError
from shared.health import listen, private_port
from shared.log import get_logger
from shared.settings import LOOPBACK, Settings
from shared.store import Store

log = get_logger(__name__)


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Serve until `stop` is set.

    Raises:
        ConfigError: a port is taken, or the console would listen beyond loopback without a key.
    """
    if settings.console_host not in LOOPBACK and settings.console_key is None:
        raise ConfigError("CALLFOLD_CONSOLE_KEY is not set: without a key the console listens on loopback only.")
    async with aclosing(Store(settings.redis_url.get_secret_value())) as store:

        async def problems() -> list[str]:
            try:
                await store.ping()
            except StoreUnavailableError as error:
                return [str(error)]
            return ["shutting down"] if stop.is_set() else []

        async with private_port(settings.metrics_host, settings.metrics_port, problems):
            runner = web.AppRunner(web.Application(), access_log=None, shutdown_timeout=settings.shutdown_timeout_seconds)
            await runner.setup()
            try:
                port = await listen(runner, settings.console_host, settings.console_port)
                log.info("console_listening", host=settings.console_host, port=port)
                await stop.wait()
            finally:
                await runner.cleanup()
