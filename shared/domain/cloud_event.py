"""The envelope of published events: CloudEvents 1.0 in structured JSON (CloudEvents specification 1.0.2, JSON format)."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

CLOUDEVENT = "application/cloudevents+json"
JSON = "application/json"


def cloud_event(
    source: str,
    subject: str,
    kind: str,
    event_id: str,
    *,
    at: str,
    data: Mapping[str, object],
    extensions: Mapping[str, str] | None = None,
) -> bytes:
    """Encode an event, with extension attributes if there are any. The same values are the same bytes in every process."""
    return orjson.dumps(
        {
            "specversion": "1.0",
            "id": event_id,
            "source": source,
            "subject": subject,
            "type": kind,
            "time": at,
            "datacontenttype": JSON,
            **(extensions or {}),
            "data": data,
        }
    )
