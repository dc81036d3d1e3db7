"""Metrics of the console and of the history, and what the console measures of the whole installation."""

from __future__ import annotations

from shared.metrics.rows import SOURCE, Label, Role, counter, gauge, histogram, measurement

_CONSOLE = Role.CONSOLE
_KINDS = ("look-ups", "details", "looks at dead letters", "changes of dead letters", "recordings", "waveforms", "previews")

OPEN_CALLS = measurement(
    "callfold_open_calls",
    "Open calls by status.",
    _CONSOLE,
    labels=(Label("status", ("ringing", "talking", "ending")),),
    remark="Every console exports it: take the maximum, not the sum.",
)
OPEN_CALL_OLDEST = measurement("callfold_open_call_oldest_seconds", "Age of the oldest open call, 0 if none is open.", _CONSOLE)
QUEUE_MESSAGES = measurement(
    "callfold_queue_messages",
    "Messages in a queue now, ready or unacked.",
    _CONSOLE,
    labels=(Label("queue"),),
    remark="Also dead-letter queues and retry queues.",
)
QUEUE_OLDEST = measurement(
    "callfold_queue_oldest_seconds",
    "Age of the oldest message of a queue, 0 if it is empty.",
    _CONSOLE,
    labels=(Label("queue"),),
    remark="A queue whose age is unknown has no series.",
)
DIALS = counter(
    "callfold_dials_total",
    "Dial requests by state.",
    _CONSOLE,
    labels=(SOURCE, Label("state", ("placed", "refused", "unknown"))),
)
CONSOLE_REQUESTS = counter(
    "callfold_console_requests_total",
    "Requests that the console answered.",
    _CONSOLE,
    labels=(Label("route"), Label("status")),
)
CONSOLE_REQUEST_SECONDS = histogram(
    "callfold_console_request_seconds",
    "Seconds from a request to the end of its answer.",
    _CONSOLE,
    labels=(Label("route"),),
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)
CONSOLE_REFUSED = counter(
    "callfold_console_refused_total",
    "Requests that a busy console refused, by kind.",
    _CONSOLE,
    labels=(Label("kind", _KINDS),),
)
HISTORY_EVENTS = counter(
    "callfold_history_events_total",
    "Events written to the history.",
    Role.HISTORY,
    labels=(Label("stream", ("calls.journal", "audit.journal")),),
)
HISTORY_LAG = gauge(
    "callfold_history_lag_seconds",
    "Seconds by which the history is behind its stream; 0 if it is up to date.",
    Role.HISTORY,
    labels=(Label("stream", ("calls.journal", "audit.journal")),),
)
