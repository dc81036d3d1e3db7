"""Metrics of every process, and of its sources file."""

from __future__ import annotations

from shared.metrics.rows import EVERY_ROLE, Label, Role, counter, gauge, histogram

_PORT = Label("port", ("public", "private"))
_SOURCES_READERS = (Role.INGRESS, Role.WORKER, Role.CONSOLE)

BUILD_INFO = gauge(
    "callfold_build_info",
    "Always 1. The labels name the release, the version of Python and the kind of process.",
    *EVERY_ROLE,
    labels=(Label("version"), Label("python"), Label("role")),
    is_begun_later=True,
)
CONNECTIONS = gauge(
    "callfold_http_connections", "Open HTTP connections.", *EVERY_ROLE, labels=(_PORT,), remark="`port`: `public` or `private`."
)
CONNECTIONS_CLOSED = counter(
    "callfold_http_connections_closed_total",
    "HTTP connections that a limit closed: time (head, body, response) or number (replaced, refused).",
    *EVERY_ROLE,
    labels=(_PORT, Label("reason", ("head", "body", "response", "replaced", "refused"))),
)
LOOP_LAG = histogram(
    "callfold_loop_lag_seconds",
    "Seconds by which timers of the event loop were late, sampled 10 to 40 times a second.",
    *EVERY_ROLE,
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5),
    remark="It grows when the process is busy, and when it gets no CPU.",
)
LOOP_STEP = histogram(
    "callfold_loop_step_cpu_seconds",
    "CPU seconds of steps of the event loop, sampled 10 to 40 times a second. A long step delays everything else in the process.",
    *EVERY_ROLE,
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5),
)
LOOP_STEP_MAX = gauge(
    "callfold_loop_step_cpu_seconds_max", "Maximum CPU seconds of one step of the event loop in the last minute.", *EVERY_ROLE
)
SOURCES_RELOAD_FAILED = gauge(
    "callfold_sources_reload_failed",
    "1 while the sources file has a fault, so that earlier sources stay in force.",
    *_SOURCES_READERS,
)
SOURCES_RELOADS = counter(
    "callfold_sources_reloads_total",
    "States of the sources file that this process read after its start: changed, unchanged, or failed because of a fault.",
    *_SOURCES_READERS,
    labels=(Label("result", ("changed", "unchanged", "failed")),),
    remark="A fault counts once, until another one or none is found.",
)
SOURCES_LOADED = gauge(
    "callfold_sources_loaded_timestamp_seconds",
    "Time at which the sources file was last read without a fault, in seconds since 1970.",
    *_SOURCES_READERS,
)
