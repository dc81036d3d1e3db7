"""Endpoints for display: settings and state, without credentials."""

from __future__ import annotations

import hashlib

import orjson

from console.endpoints.models import DisabledView, EndpointSettings, EndpointView, SecretView
from console.history.attempts import Attempt
from shared.amqp.queue_reader import Waiting
from shared.config.endpoints import Endpoint
from shared.webhooks.live_endpoints import EndpointState, Origin

_FINGERPRINT = 8
_ETAG = 16


def view(
    state: EndpointState,
    *,
    file: str | None,
    shows_url: bool,
    waiting: Waiting | None = None,
    last_attempt: Attempt | None = None,
) -> EndpointView:
    """Describe an endpoint. A URL can hold a credential, so only an operator sees all of it."""
    endpoint, mark = state.endpoint, state.disabled
    return EndpointView(
        name=endpoint.name,
        origin=state.origin.value,
        file=file if state.origin is Origin.FILE else None,
        settings=_settings(endpoint, shows_url=shows_url),
        secret=_secret(endpoint.secrets[0]),
        previous_secrets=[_secret(each) for each in endpoint.secrets[1:]],
        is_active=state.is_active,
        disabled=None if mark is None else DisabledView(at=mark.at, detail=mark.detail),
        waiting=None if waiting is None else waiting.messages,
        has_forwarder=None if waiting is None else waiting.consumers > 0,
        last_attempt=last_attempt,
    )


def etag(state: EndpointState) -> str:
    """Return the entity tag of an endpoint, which changes with each setting, its secrets included."""
    endpoint = state.endpoint
    headers = {name: value.get_secret_value() for name, value in endpoint.headers.items()}
    settings = _settings(endpoint, shows_url=True).model_dump()
    content = orjson.dumps([settings, headers, endpoint.secrets, state.disabled], default=str, option=orjson.OPT_SORT_KEYS)
    return f'"{hashlib.sha256(content).hexdigest()[:_ETAG]}"'


def _settings(endpoint: Endpoint, *, shows_url: bool) -> EndpointSettings:
    return EndpointSettings(
        url=endpoint.url.get_secret_value() if shows_url else endpoint.shown_url,
        filter=list(endpoint.filters),
        where=endpoint.where,
        headers=dict.fromkeys(endpoint.headers),
        networks=[str(network) for network in endpoint.networks],
        order=endpoint.order.value,
        enabled=endpoint.enabled,
        max_in_flight=endpoint.max_in_flight,
        timeout_s=endpoint.timeout_s,
    )


def _secret(secret: str) -> SecretView:
    return SecretView(fingerprint=hashlib.sha256(secret.encode()).hexdigest()[:_FINGERPRINT])
