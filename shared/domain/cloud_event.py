"""The envelope of published events: CloudEvents 1.0 in structured JSON (CloudEvents specification 1.0.2, JSON format)."""

from __future__ import annotations

from typing import Final

CLOUDEVENT: Final = "application/cloudevents+json"
JSON: Final = "application/json"
SPEC_VERSION: Final = "1.0"
_SCHEMAS = "callfold:/docs/schemas/"


def dataschema_of(kind: str) -> str:
    """Return the URI of the schema of a type of event, which ends in `callfold.call.completed/v1.json` for completed calls.

    What follows `docs/schemas/` is the path of the schema in the repository, and below `/schemas/` of the console.
    """
    name, _, version = kind.rpartition(".")
    return f"{_SCHEMAS}{name}/{version}.json"
