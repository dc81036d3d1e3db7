"""The names of all endpoints, for a command that only needs these."""

from __future__ import annotations

from console.endpoints.editor import EndpointEditor
from shared.config.settings import Settings
from shared.runtime.broker import broker_address, create_publisher
from shared.runtime.process import background
from shared.streams.connections import wait_until_connected
from shared.webhooks.live_endpoints import LiveEndpoints


async def known_endpoints(settings: Settings) -> frozenset[str]:
    """Read the names of the endpoints of file and API.

    Raises:
        CallfoldError: RabbitMQ cannot be reached.
    """
    live = LiveEndpoints(settings.endpoints_file, broker_address(settings, "endpoints"))
    editor = EndpointEditor(settings, live, create_publisher(settings, "cli"))
    async with background(*editor.tasks()):
        await wait_until_connected(live.follower.consumer)
        await editor.wait_until_complete()
        return frozenset(live.current)
