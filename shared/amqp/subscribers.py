"""Queues of subscribers. AMQP does not list them, so the management API is read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from urllib.parse import quote

import aiohttp
from yarl import URL

from shared.amqp.topology import CALLS
from shared.errors import BrokerUnavailableError

_TIMEOUT_S = 5


@dataclass(frozen=True, slots=True)
class Subscription:
    """A binding to the exchange `calls` of a queue or an exchange that is not Callfold's."""

    name: str
    pattern: str

    def __str__(self) -> str:
        return f"{self.name} ({self.pattern})"


async def read_subscriptions(management_url: str, amqp_url: str, ours: Collection[str]) -> list[Subscription]:
    """Read what is bound to the exchange `calls`, without the queues in `ours`.

    Raises:
        BrokerUnavailableError: the API does not answer, or refuses.
    """
    url, vhost = URL(management_url), quote(URL(amqp_url).path.lstrip("/") or "/", safe="")
    headers = {"Authorization": aiohttp.encode_basic_auth(url.user or "guest", url.password or "guest")}
    base = url.with_user(None)
    address = URL(f"{str(base).rstrip('/')}/api/exchanges/{vhost}/{CALLS}/bindings/source", encoded=True)
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(_TIMEOUT_S), headers=headers) as session,
            session.get(address, allow_redirects=False, raise_for_status=True) as response,
        ):
            return subscriptions(await response.json(), ours)
    except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError) as error:
        detail = f"status {error.status}" if isinstance(error, aiohttp.ClientResponseError) else type(error).__name__
        raise BrokerUnavailableError(f"Cannot read the subscribers at {base.host}:{base.port}: {detail}") from error


def subscriptions(bindings: Collection[Mapping[str, object]], ours: Collection[str]) -> list[Subscription]:
    """Read the answer of the API."""
    bound = [Subscription(str(binding["destination"]), str(binding["routing_key"])) for binding in bindings]
    return sorted({each for each in bound if each.name not in ours}, key=str)
