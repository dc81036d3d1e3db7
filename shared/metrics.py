"""All metrics. No label has a value that a caller can choose freely."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

CALLBACKS = Counter("callfold_callbacks_total", "Callbacks answered by ingress.", ("source", "result"))
CALLBACK_SECRETS = Counter(
    "callfold_callback_secrets_total",
    "Callbacks with a valid secret, by which of the source's secrets it was (current or previous).",
    ("source", "which"),
)
SOURCES_RELOAD_FAILED = Gauge(
    "callfold_sources_reload_failed", "1 while the sources file has a fault, so that earlier sources stay in force."
)
SOURCES_RELOADS = Counter(
    "callfold_sources_reloads_total",
    "States of the sources file that this process read after its start: changed, unchanged, or failed because of a fault.",
    ("result",),
)
SOURCES_LOADED = Gauge(
    "callfold_sources_loaded_timestamp_seconds",
    "Time at which the sources file was last read without a fault, in seconds since 1970.",
)
REQUESTS_REFUSED = Counter(
    "callfold_requests_refused_total", "Requests rejected before they were parsed as callbacks.", ("status",)
)
CALLBACKS_REFUSED = Counter(
    "callfold_callbacks_refused_total", "Requests to ingress that were refused and not kept, by reason.", ("reason",)
)
QUARANTINED = Counter(
    "callfold_callbacks_quarantined_total",
    "Callbacks for the quarantine: kept, beyond the rate of their sender (limited), or not published (lost).",
    ("result",),
)
CONNECTIONS = Gauge("callfold_http_connections", "Open HTTP connections.", ("port",))
CONNECTIONS_CLOSED = Counter(
    "callfold_http_connections_closed_total",
    "HTTP connections that a limit closed: time (head, body, response) or number (replaced, refused).",
    ("port", "reason"),
)
BATCH_EVENTS = Histogram(
    "callfold_batch_events",
    "Callbacks published together in one message.",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500),
)
PUBLISH_SECONDS = Histogram(
    "callfold_publish_seconds",
    "Seconds from publish to confirm.",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 3),
)
SPOOLED = Counter("callfold_spooled_messages_total", "Messages written to the local spool while RabbitMQ was unavailable.")
SPOOL_MESSAGES = Gauge("callfold_spool_messages", "Messages in the local spool of this machine.")
SPOOL_USABLE = Gauge("callfold_spool_usable", "0 while a spool file cannot be written. Callbacks need RabbitMQ then.", ("file",))
SPOOL_SET_ASIDE = Counter("callfold_spool_set_aside_total", "Damaged spool files that were set aside.", ("file",))
QUEUE_FULL = Gauge(
    "callfold_queue_full", "1 while this process publishes nothing to a queue because it is full, or nearly.", ("queue",)
)
BROKER_BLOCKED = Gauge("callfold_broker_blocked", "1 while an alarm of RabbitMQ (memory or disk) blocks the publisher.")
BROKER_HOST_REACHABLE = Gauge(
    "callfold_broker_host_reachable", "1 if an address of `CALLFOLD_AMQP_URL` answered the last probe.", ("host",)
)
BROKER_MOVES = Counter("callfold_broker_moves_total", "Connections that went back to their own node of RabbitMQ.")
HARMFUL_POLICIES = Gauge("callfold_harmful_policies", "Policies of RabbitMQ that can lose messages of Callfold's queues.")
POLICIES_MISSING = Gauge("callfold_policies_missing", "Queues of RabbitMQ that lack a limit, because their policy is missing.")
POLICIES_CHANGED = Gauge("callfold_policies_changed", "Queues of RabbitMQ whose limits are not those that Callfold ships.")
CALLBACKS_WAITED = Counter(
    "callfold_callbacks_waited_total", "Callbacks that waited because their source sent more than its share.", ("source",)
)
WAITING_BYTES = Gauge("callfold_waiting_bytes", "Bytes of callbacks on this machine that wait for the fold.", ("source",))
PUBLISH_TO_FOLD_SECONDS = Gauge("callfold_publish_to_fold_seconds", "Seconds from publish to fold, as ingress measures them.")
EVENTS_FOLDED = Counter("callfold_events_folded_total", "Raw events merged into calls.", ("kind",))
LOGIN = "login"
"""The label `outcome` of a login, which is no answered call."""
CALLS_COMPLETED = Counter("callfold_calls_completed_total", "Calls published as completed.", ("source", "outcome"))
CALLS_AMENDED = Counter("callfold_calls_amended_total", "Amended revisions of published calls.", ("source", "outcome"))
DEAD_LETTERS = Counter("callfold_dead_letters_total", "Messages moved to a dead-letter queue.", ("queue", "reason"))
NONSENSE_TIMESTAMPS = Counter(
    "callfold_nonsense_timestamps_total", "Implausible adapter timestamps, which were ignored.", ("source",)
)
IGNORED_VALUES = Counter(
    "callfold_ignored_values_total",
    "Adapter values that were not used as they were sent.",
    ("source", "placeholder", "reason"),
)
PLACEHOLDERS_UNREPLACED = Counter(
    "callfold_placeholders_unreplaced_total",
    "Placeholders that arrived instead of their value.",
    ("source", "placeholder"),
)
CALLBACKS_OF_TOMBSTONES = Counter("callfold_buried_events_total", "Events of calls whose facts had already expired.", ("source",))
CALLBACKS_BEYOND_BOUNDS = Counter(
    "callfold_callbacks_beyond_bounds_total", "Events dead-lettered because their call has too many legs or bytes.", ("source",)
)
TIMERS = Counter("callfold_timers_total", "Timer events published.")
TIMERS_AHEAD = Counter("callfold_timers_ahead_total", "Timer events dropped because their time was in the future.")
PARTITIONS_REBUILDING = Gauge(
    "callfold_partitions_rebuilding", "Partitions of Redis that have lost state, and whose calls wait until it is rebuilt."
)
TIMERS_HELD = Gauge("callfold_timers_held", "1 while timers are paused because the fold backlog is unknown.")
FOLD_LAG_SECONDS = Gauge(
    "callfold_fold_lag_seconds", "Maximum age in seconds of callbacks that are not folded yet; timers are late by this much."
)
FOLD_PREFETCH = Gauge(
    "callfold_fold_prefetch", "Messages that the worker may have in flight, so that their callbacks are limited."
)
FOLD_SECONDS = Histogram(
    "callfold_fold_seconds",
    "Seconds to fold a batch: merge, claim, publish, mark.",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5),
)
REDIS_UNCONFIRMED = Counter(
    "callfold_redis_unconfirmed_total", "Batches of writes that too few replicas of Redis confirmed in time; work went on."
)
REBUILDS = Counter("callfold_rebuilds_total", "Rebuilds of lost state of Redis by this worker.", ("result",))
REBUILD_SECONDS = Gauge("callfold_rebuild_seconds", "Seconds that the running rebuild, or else the last one, has taken.")
REBUILD_MESSAGES = Counter("callfold_rebuild_messages_total", "Messages read from `callbacks.journal` by rebuilds.")
REBUILD_EVENTS = Counter("callfold_rebuild_events_total", "Events replayed into Redis by rebuilds.")
JOURNAL_TOO_SHORT = Gauge(
    "callfold_rebuild_journal_too_short", "1 if `callbacks.journal` did not reach back far enough for the last rebuild."
)
CLOCK_OFFSET = Gauge("callfold_clock_offset_seconds", "Seconds by which the clock of this process is ahead of that of Redis.")
INGRESS_CLOCK_OFFSET = Gauge(
    "callfold_ingress_clock_offset_seconds",
    "Seconds by which the clock of a machine that sends callbacks is ahead of that of Redis.",
    ("machine",),
)
PBX_CLOCK_OFFSET = Gauge(
    "callfold_pbx_clock_offset_seconds",
    "Seconds by which the clock of a source's PBX is ahead of that of ingress.",
    ("source",),
)
RECORDINGS = Counter("callfold_recordings_total", "Recording jobs by result.", ("source", "result"))
RECORDING_ATTEMPTS_FAILED = Counter(
    "callfold_recording_tries_failed_total", "Failed attempts of recording jobs.", ("source", "reason")
)
RECORDINGS_HELD = Gauge(
    "callfold_recordings_held", "1 while this worker consumes no recording jobs because the archive cannot be written."
)
HISTORY_EVENTS = Counter("callfold_history_events_total", "Events written to the history.", ("stream",))
HISTORY_LAG = Gauge(
    "callfold_history_lag_seconds", "Seconds by which the history is behind its stream; 0 if it is up to date.", ("stream",)
)
CONSOLE_REFUSED = Counter("callfold_console_refused_total", "Requests that a busy console refused, by kind.", ("kind",))
LOOP_STEP = Histogram(
    "callfold_loop_step_cpu_seconds",
    "CPU seconds of steps of the event loop, sampled 10 to 40 times a second. A long step delays everything else in the process.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5),
)
LOOP_STEP_MAX = Gauge(
    "callfold_loop_step_cpu_seconds_max", "Maximum CPU seconds of one step of the event loop in the last minute."
)
