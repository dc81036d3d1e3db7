"""Metrics of the fold, of its timers and of rebuilds."""

from __future__ import annotations

from shared.domain.adapter_link import Placeholder
from shared.domain.closing import Outcome
from shared.metrics.rows import SOURCE, Label, Role, counter, gauge, histogram

LOGIN = "login"
"""The label `outcome` of a login, which is no answered call."""

_WORKER = Role.WORKER
_OUTCOME = Label("outcome", (*Outcome, LOGIN))
_OF_CALLBACKS = ("invalid_callback", "unreadable_body", "unknown_source", "undecodable", "damaged_in_spool", "fold_failed")
_OF_CALLS = ("expired_call", "too_many_legs", "too_many_annotations")
RECORDING_REASONS = (
    *("not_found", "empty", "not_ready", "growing", "redirected", "unreachable", "host_not_found", "certificate_expired"),
    *("certificate_wrong_host", "certificate_untrusted", "certificate_invalid", "tls_failed", "header_too_long"),
    *("invalid_response", "stalled", "interrupted", "unexpected_status", "not_allowed", "login_page", "not_a_recording"),
    *("truncated", "length_mismatch", "no_audio", "shorter_than_call", "compressed", "too_large", "origin_not_allowed"),
    *("path_not_allowed", "address_not_allowed", "too_many_redirects", "no_recording_link", "unknown_source"),
    *("archive_unavailable", "no_space", "internal_error"),
)
"""The reasons of `worker/download/failures.py`."""

EVENTS_FOLDED = counter(
    "callfold_events_folded_total",
    "Raw events merged into calls.",
    _WORKER,
    labels=(Label("kind", ("callback", "dial", "timer", "annotation")),),
    remark="`kind`: `callback`, `dial`, `timer` or `annotation`.",
)
CALLS_COMPLETED = counter(
    "callfold_calls_completed_total",
    "Calls published as completed.",
    _WORKER,
    labels=(SOURCE, _OUTCOME),
    remark="`outcome`: see [record.md](record.md), or `login` for every [login](record.md#kind-of-call).",
)
CALLS_AMENDED = counter(
    "callfold_calls_amended_total",
    "Amended revisions of published calls.",
    _WORKER,
    labels=(SOURCE, _OUTCOME),
    remark="`outcome` as of completed calls.",
)
DEAD_LETTERS = counter(
    "callfold_dead_letters_total",
    "Messages moved to a dead-letter queue.",
    Role.INGRESS,
    _WORKER,
    labels=(Label("queue", ("callbacks.dead", "recordings.dead")), Label("reason")),
    pairs=(
        *(("callbacks.dead", reason) for reason in (*_OF_CALLBACKS, *_OF_CALLS)),
        *(("recordings.dead", reason) for reason in (*RECORDING_REASONS, "undecodable", "job_failed")),
    ),
    remark="`reason`: see [dead-letters.md](dead-letters.md). `callfold_queue_messages` has what is there now.",
)
NONSENSE_TIMESTAMPS = counter(
    "callfold_nonsense_timestamps_total",
    "Implausible adapter timestamps, which were ignored.",
    _WORKER,
    labels=(SOURCE,),
    remark="`callfold_ignored_values_total` counts them too.",
)
IGNORED_VALUES = counter(
    "callfold_ignored_values_total",
    "Adapter values that were not used as they were sent.",
    _WORKER,
    labels=(SOURCE, Label("placeholder"), Label("reason")),
    remark="[Reasons](record.md#what-was-ignored).",
)
PLACEHOLDERS_UNREPLACED = counter(
    "callfold_placeholders_unreplaced_total",
    "Placeholders that arrived instead of their value.",
    _WORKER,
    labels=(SOURCE, Label("placeholder", tuple(Placeholder))),
    remark="Correct the adapter link in FocalScope.",
)
CALLBACKS_OF_TOMBSTONES = counter(
    "callfold_buried_events_total", "Events of calls whose facts had already expired.", _WORKER, labels=(SOURCE,)
)
CALLBACKS_BEYOND_BOUNDS = counter(
    "callfold_callbacks_beyond_bounds_total",
    "Events dead-lettered because their call has too many legs or bytes.",
    _WORKER,
    labels=(SOURCE,),
)
TIMERS = counter("callfold_timers_total", "Timer events published.", _WORKER)
TIMERS_AHEAD = counter("callfold_timers_ahead_total", "Timer events dropped because their time was in the future.", _WORKER)
TIMERS_HELD = gauge("callfold_timers_held", "1 while timers are paused because the fold backlog is unknown.", _WORKER)
FOLD_LAG_SECONDS = gauge(
    "callfold_fold_lag_seconds",
    "Maximum age in seconds of callbacks that are not folded yet; timers are late by this much.",
    _WORKER,
)
FOLD_PREFETCH = gauge(
    "callfold_fold_prefetch", "Messages that the worker may have in flight, so that their callbacks are limited.", _WORKER
)
FOLD_SECONDS = histogram(
    "callfold_fold_seconds",
    "Seconds to fold a batch: merge, claim, publish, mark.",
    _WORKER,
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5),
)
EVENT_DELAY = histogram(
    "callfold_event_delay_seconds",
    "Seconds from the receipt of the last callback of a call to the confirm of the event that it caused.",
    _WORKER,
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
    remark="Calls that a timer closes are not counted, because they wait on purpose.",
)
PARTITIONS_REBUILDING = gauge(
    "callfold_partitions_rebuilding",
    "Partitions of Redis that have lost state, and whose calls wait until it is rebuilt.",
    _WORKER,
)
REBUILDS = counter(
    "callfold_rebuilds_total",
    "Rebuilds of lost state of Redis by this worker.",
    _WORKER,
    labels=(Label("result", ("finished", "failed")),),
    remark="`finished` or `failed`; a failed one begins again.",
)
REBUILD_SECONDS = gauge("callfold_rebuild_seconds", "Seconds that the running rebuild, or else the last one, has taken.", _WORKER)
REBUILD_MESSAGES = counter("callfold_rebuild_messages_total", "Messages read from `callbacks.journal` by rebuilds.", _WORKER)
REBUILD_EVENTS = counter("callfold_rebuild_events_total", "Events replayed into Redis by rebuilds.", _WORKER)
JOURNAL_TOO_SHORT = gauge(
    "callfold_rebuild_journal_too_short",
    "1 if `callbacks.journal` did not reach back far enough for the last rebuild.",
    _WORKER,
)
INGRESS_CLOCK_OFFSET = gauge(
    "callfold_ingress_clock_offset_seconds",
    "Seconds by which the clock of a machine that sends callbacks is ahead of that of Redis.",
    _WORKER,
    labels=(Label("machine"),),
)
