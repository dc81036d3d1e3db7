"""Metrics of ingress."""

from __future__ import annotations

from shared.domain.quarantined import Refusal
from shared.metrics.rows import SOURCE, Label, Role, counter, gauge, histogram, measurement

_FILE = Label("file")

CALLBACKS = counter(
    "callfold_callbacks_total",
    "Callbacks answered by ingress.",
    Role.INGRESS,
    labels=(SOURCE, Label("result", ("accepted", "invalid", "wrong_secret", "limited", "unavailable"))),
    remark="`result`: `accepted` (200), `invalid` (400), `wrong_secret` (401), `limited` (429) or `unavailable` (503).",
)
CALLBACK_SECRETS = counter(
    "callfold_callback_secrets_total",
    "Callbacks with a valid secret, by which of the source's secrets it was (current or previous).",
    Role.INGRESS,
    labels=(SOURCE, Label("which", ("current", "previous"))),
)
LAST_CALLBACK = gauge(
    "callfold_last_callback_timestamp_seconds",
    "Time at which this process last accepted a callback of a source, in seconds since 1970.",
    Role.INGRESS,
    labels=(SOURCE,),
    remark="0 until the first one. Take the maximum over all ingresses.",
)
REQUESTS_REFUSED = counter(
    "callfold_requests_refused_total",
    "Requests rejected before they were parsed as callbacks.",
    Role.INGRESS,
    labels=(Label("status", ("400", "404", "405", "408", "413", "414", "415", "431")),),
    remark="`callfold_callbacks_refused_total` has their reasons.",
)
CALLBACKS_REFUSED = counter(
    "callfold_callbacks_refused_total",
    "Requests to ingress that were refused and not kept, by reason.",
    Role.INGRESS,
    labels=(Label("reason", tuple(Refusal)),),
    remark="[Answers of ingress](operations.md#answers-of-ingress).",
)
QUARANTINED = counter(
    "callfold_callbacks_quarantined_total",
    "Callbacks for the quarantine: kept, beyond the rate of their sender (limited), or not published (lost).",
    Role.INGRESS,
    labels=(Label("result", ("kept", "limited", "lost")),),
)
BATCH_EVENTS = histogram(
    "callfold_batch_events",
    "Callbacks published together in one message.",
    Role.INGRESS,
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500),
)
PUBLISH_SECONDS = histogram(
    "callfold_publish_seconds",
    "Seconds from publish to confirm.",
    Role.INGRESS,
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 3),
)
SPOOLED = counter(
    "callfold_spooled_messages_total",
    "Messages written to the local spool while RabbitMQ was unavailable.",
    Role.INGRESS,
)
SPOOL_MESSAGES = gauge("callfold_spool_messages", "Messages in the local spool of this machine.", Role.INGRESS)
SPOOL_BYTES = gauge("callfold_spool_bytes", "Bytes of the messages in the local spool of this machine.", Role.INGRESS)
SPOOL_MAX_BYTES = gauge(
    "callfold_spool_max_bytes",
    "Size at which the local spool of this machine is full (`CALLFOLD_SPOOL_MAX_BYTES`).",
    Role.INGRESS,
)
SPOOL_OLDEST = measurement(
    "callfold_spool_oldest_seconds", "Age of the oldest callback in the local spool, 0 if it is empty.", Role.INGRESS
)
SPOOL_USABLE = gauge(
    "callfold_spool_usable",
    "0 while a spool file cannot be written. Callbacks need RabbitMQ then.",
    Role.INGRESS,
    labels=(_FILE,),
    is_begun_later=True,
)
SPOOL_SET_ASIDE = counter(
    "callfold_spool_set_aside_total",
    "Damaged spool files that were set aside.",
    Role.INGRESS,
    labels=(_FILE,),
    is_begun_later=True,
)
CALLBACKS_WAITED = counter(
    "callfold_callbacks_waited_total",
    "Callbacks that waited because their source sent more than its share.",
    Role.INGRESS,
    labels=(SOURCE,),
)
WAITING_BYTES = gauge(
    "callfold_waiting_bytes", "Bytes of callbacks on this machine that wait for the fold.", Role.INGRESS, labels=(SOURCE,)
)
PUBLISH_TO_FOLD_SECONDS = gauge(
    "callfold_publish_to_fold_seconds", "Seconds from publish to fold, as ingress measures them.", Role.INGRESS
)
