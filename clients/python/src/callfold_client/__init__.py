"""Subscribe to the calls and recordings that Callfold publishes. The README has examples."""

from __future__ import annotations

from typing import TYPE_CHECKING

from callfold_client.errors import (
    CallfoldClientError,
    NotAnEventError,
    QueueConflictError,
    RecordingError,
    RefusedError,
    StreamError,
    SubscriptionError,
    TransportLostError,
    WhereError,
)

if TYPE_CHECKING:
    from callfold_client.events import CallRecord, Event, Leg, Recording, parse_event
    from callfold_client.recordings import fetch_recording, fetch_recording_sync
    from callfold_client.seen import MemorySeenIds, SeenIds, SqliteSeenIds
    from callfold_client.subscription import Subscription, subscribe
    from callfold_client.subscription_sync import SyncSubscription, subscribe_sync
    from callfold_client.topics import topic_matcher
    from callfold_client.where import Where

__all__ = [
    "CallRecord",
    "CallfoldClientError",
    "Event",
    "Leg",
    "MemorySeenIds",
    "NotAnEventError",
    "QueueConflictError",
    "Recording",
    "RecordingError",
    "RefusedError",
    "SeenIds",
    "SqliteSeenIds",
    "StreamError",
    "Subscription",
    "SubscriptionError",
    "SyncSubscription",
    "TransportLostError",
    "Where",
    "WhereError",
    "fetch_recording",
    "fetch_recording_sync",
    "parse_event",
    "subscribe",
    "subscribe_sync",
    "topic_matcher",
]

# A module is loaded when it is used. So a program that only reads errors, events or filters does not load AMQP and HTTP.
_LAZY = {
    "CallRecord": "events",
    "Event": "events",
    "Leg": "events",
    "Recording": "events",
    "parse_event": "events",
    "MemorySeenIds": "seen",
    "SeenIds": "seen",
    "SqliteSeenIds": "seen",
    "topic_matcher": "topics",
    "Where": "where",
    "fetch_recording": "recordings",
    "fetch_recording_sync": "recordings",
    "Subscription": "subscription",
    "subscribe": "subscription",
    "SyncSubscription": "subscription_sync",
    "subscribe_sync": "subscription_sync",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415

    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
