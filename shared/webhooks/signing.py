"""Signatures of webhooks by Standard Webhooks, made by its Python library."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from standardwebhooks.webhooks import Webhook

from shared.config.endpoint_options import SECRET_PREFIX

ID_HEADER: Final = "webhook-id"
TIMESTAMP_HEADER: Final = "webhook-timestamp"
SIGNATURE_HEADER: Final = "webhook-signature"
_SECRET_BYTES = 32
_ID_CHARACTERS = 40


def webhook_id(event_id: str) -> str:
    """Return the `webhook-id` of an event, the same for each attempt and each endpoint.

    An event id can have dots, which separate the parts of what is signed.
    """
    return f"evt_{hashlib.sha256(event_id.encode()).hexdigest()[:_ID_CHARACTERS]}"


def signed_headers(keys: Sequence[str], message_id: str, body: str, at: datetime) -> Mapping[str, str]:
    """Return the three headers of Standard Webhooks, with one signature for each key."""
    at = at.astimezone(UTC)
    signatures = [Webhook(key).sign(message_id, at, body) for key in keys]
    return {
        ID_HEADER: message_id,
        TIMESTAMP_HEADER: str(int(at.timestamp())),
        SIGNATURE_HEADER: " ".join(signatures),
    }


def new_secret() -> str:
    """Return a new random secret."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode("ascii")
