"""Metrics of the console and of the history, and what the console measures of the whole installation."""

from __future__ import annotations

from shared.metrics.rows import SOURCE, Label, Role, counter, gauge, histogram, measurement

_CONSOLE = Role.CONSOLE
_KINDS = (
    "look-ups",
    "details",
    "annotations",
    "looks at dead letters",
    "changes of dead letters",
    "changes of webhooks",
    "tests of webhooks",
    "recordings",
    "waveforms",
    "previews",
)

OPEN_CALLS = measurement(
    "callfold_open_calls",
    "Open calls by status.",
    _CONSOLE,
    labels=(Label("status", ("ringing", "talking", "ending")),),
    remark="Of more than 500, 500 random ones show the shares. Every console exports it: take the maximum, not the sum.",
)
OPEN_CALL_OLDEST = measurement("callfold_open_call_oldest_seconds", "Age of the oldest open call, 0 if none is open.", _CONSOLE)
QUEUE_MESSAGES = measurement(
    "callfold_queue_messages",
    "Messages in a queue now.",
    _CONSOLE,
    labels=(Label("queue"),),
    remark="Also dead-letter and retry queues. Unacked messages count too if `CALLFOLD_MANAGEMENT_URL` is set.",
)
QUEUE_OLDEST = measurement(
    "callfold_queue_oldest_seconds",
    "Age of the oldest message of a queue, 0 if it is empty.",
    _CONSOLE,
    labels=(Label("queue"),),
    remark="Known of `callbacks.dead` and `recordings.dead`, once a minute. That of `callbacks.fold` is a maximum.",
)
DIALS = counter(
    "callfold_dials_total",
    "Dial requests by state.",
    _CONSOLE,
    labels=(SOURCE, Label("state", ("accepted", "refused", "unknown"))),
    remark="A repeat of a request with its `Idempotency-Key` does not count, nor does one for an unknown source.",
)
CONSOLE_REQUESTS = counter(
    "callfold_console_requests_total",
    "Requests that the console answered.",
    _CONSOLE,
    labels=(Label("route"), Label("status", ("2xx", "3xx", "4xx", "5xx"))),
    is_begun_later=True,
    remark="`route`: the path with names instead of values, or `other`. `status`: `2xx`, `3xx`, `4xx` or `5xx`.",
)
CONSOLE_REQUEST_SECONDS = histogram(
    "callfold_console_request_seconds",
    "Seconds from a request to the end of its answer.",
    _CONSOLE,
    labels=(Label("route"),),
    is_begun_later=True,
    remark="Streams that never end are not measured.",
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
    labels=(Label("stream", ("calls.journal", "audit.journal", "forward.journal")),),
)
HISTORY_LAG = gauge(
    "callfold_history_lag_seconds",
    "Seconds by which the history is behind its stream; 0 if it is up to date.",
    Role.HISTORY,
    labels=(Label("stream", ("calls.journal", "audit.journal", "forward.journal")),),
)
