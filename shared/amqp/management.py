"""Reads RabbitMQ's management API, which knows what AMQP does not show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import quote

import aiohttp
from yarl import URL

from shared.errors import BrokerUnavailableError

_TIMEOUT_S: Final = 5
_VHOST: Final = "{vhost}"

_T = TypeVar("_T")


async def read_management(
    management_url: str, amqp_url: str, paths: Sequence[str], parse: Callable[[Sequence[Any]], _T], *, what: str
) -> _T:
    """Return what `parse` makes of the answers to some paths below `/api`, each a JSON value.

    `{vhost}` in a path is the virtual host of the AMQP URL. `what` names the answers in errors. The user of the management URL
    needs the tag `policymaker`, or one that may do more.

    Raises:
        BrokerUnavailableError: the API does not answer, refuses, or answers something else.
    """
    url, vhost = URL(management_url), quote(URL(amqp_url).path.lstrip("/") or "/", safe="")
    headers = {"Authorization": aiohttp.encode_basic_auth(url.user or "guest", url.password or "guest")}
    base = url.with_user(None)
    answers: list[Any] = []
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(_TIMEOUT_S), headers=headers) as session:
            for path in paths:
                address = URL(f"{str(base).rstrip('/')}/api/{path.replace(_VHOST, vhost)}", encoded=True)
                async with session.get(address, allow_redirects=False, raise_for_status=True) as response:
                    answers.append(await response.json())
        return parse(answers)
    except (aiohttp.ClientError, TimeoutError, ValueError, AttributeError, KeyError, TypeError) as error:
        detail = f"status {error.status}" if isinstance(error, aiohttp.ClientResponseError) else f"{type(error).__name__} {error}"
        raise BrokerUnavailableError(f"Cannot read {what} at {base.host}:{base.port}: {detail}") from error
