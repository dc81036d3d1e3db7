"""Test events: one signed request to an endpoint now, with the guards of the forwarder. It is attempted once."""

from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime
from typing import Final, NamedTuple

import aiohttp
import orjson
from yarl import URL

from console.endpoints.models import TrialView
from shared.config.endpoints import Endpoint
from shared.domain.cloud_event import CLOUDEVENT, JSON
from shared.domain.times import rfc3339
from shared.webhooks.attempts import ANSWER_BYTES, shown_answer, shown_error
from shared.webhooks.signing import signed_headers, webhook_id
from worker.download.address_guard import REFUSED, socket_factory

TEST_TYPE: Final = "callfold.webhook.test.v1"
_SUCCESS = range(200, 300)
_REDIRECTS = range(300, 400)


class _Answer(NamedTuple):
    status: int
    body: bytes


class Trials:
    """Sends test events."""

    async def send(self, endpoint: Endpoint) -> TrialView:
        """Send a test event, also to an endpoint that is disabled."""
        at = datetime.now(UTC)
        event_id = f"test/{uuid.uuid4()}"
        body = _event(endpoint.name, event_id, rfc3339(at))
        message_id = webhook_id(event_id)
        headers = {
            **{name: value.get_secret_value() for name, value in endpoint.headers.items()},
            "Content-Type": CLOUDEVENT,
            **signed_headers(endpoint.secrets, message_id, body.decode(), at),
        }
        started = time.monotonic()
        answer, failure = await _post(endpoint, body, headers)
        if answer is not None and answer.status not in _SUCCESS:
            hint = ". Redirects are not followed: correct the URL" if answer.status in _REDIRECTS else ""
            failure = f"the endpoint answered {answer.status}{hint}"
        return TrialView(
            delivered=failure is None,
            status=None if answer is None else answer.status,
            error=None if failure is None else shown_error(failure),
            seconds=round(time.monotonic() - started, 3),
            answer="" if answer is None else shown_answer(answer.body),
            webhook_id=message_id,
        )


def _event(name: str, event_id: str, at: str) -> bytes:
    return orjson.dumps(
        {
            "specversion": "1.0",
            "id": event_id,
            "source": "/callfold",
            "type": TEST_TYPE,
            "time": at,
            "datacontenttype": JSON,
            "data": {"endpoint": name},
        }
    )


async def _post(endpoint: Endpoint, body: bytes, headers: dict[str, str]) -> tuple[_Answer | None, str | None]:
    """Post a body; returns the answer, or why there was none."""
    url = URL(endpoint.url.get_secret_value())
    connector = aiohttp.TCPConnector(socket_factory=socket_factory(url.host or "", endpoint.networks), force_close=True)
    timeout = aiohttp.ClientTimeout(total=endpoint.timeout_s)
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False, auto_decompress=False) as session,
            session.post(url, data=body, headers=headers, allow_redirects=False) as response,
        ):
            return _Answer(response.status, await response.content.read(ANSWER_BYTES)), None
    except TimeoutError:
        return None, f"no answer within {endpoint.timeout_s:g} s"
    except aiohttp.ClientConnectorError as error:
        return None, _not_connected(error)
    except (aiohttp.ClientError, ConnectionError, ValueError) as error:
        return None, f"the answer is no valid HTTP: {type(error).__name__}"


def _not_connected(error: aiohttp.ClientConnectorError) -> str:
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "the name of the host does not resolve"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "the certificate of the host is not valid"
    if REFUSED in str(error.os_error):
        return "the address of the host is refused: it is internal, and `networks` does not allow it"
    return f"no connection: {type(error.os_error).__name__}"
