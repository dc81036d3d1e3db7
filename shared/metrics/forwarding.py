"""Metrics of webhooks."""

from __future__ import annotations

from shared.metrics.rows import Label, Role, counter, histogram, measurement

_ENDPOINT = Label("endpoint")
_RESULTS = ("delivered", "retry", "dead", "disabled")

FORWARD_ATTEMPTS = counter(
    "callfold_forward_attempts_total",
    "Attempts at delivering an event to an endpoint, by result.",
    Role.FORWARD,
    labels=(_ENDPOINT, Label("result", _RESULTS)),
    remark="`result`: `delivered`, `retry`, `dead` or `disabled`, see [webhooks.md](webhooks.md#answers-and-retries).",
    is_begun_later=True,
)
FORWARD_SECONDS = histogram(
    "callfold_forward_seconds",
    "Time from the request to the end of the answer of an endpoint.",
    Role.FORWARD,
    labels=(_ENDPOINT,),
    buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60),
    is_begun_later=True,
)
FORWARD_BREAKER_OPEN = measurement(
    "callfold_forward_breaker_open",
    "1 while this process sends an endpoint nothing but probes, because its last attempts failed.",
    Role.FORWARD,
    labels=(_ENDPOINT,),
)
FORWARD_WAITING = measurement(
    "callfold_forward_waiting",
    "Events that wait for an endpoint in its queue and in its retry queues.",
    Role.FORWARD,
    labels=(_ENDPOINT,),
)
FORWARD_DISABLED = measurement(
    "callfold_forward_disabled",
    "1 for an endpoint that has answered 410 and gets nothing until it is enabled again.",
    Role.FORWARD,
    labels=(_ENDPOINT,),
)
