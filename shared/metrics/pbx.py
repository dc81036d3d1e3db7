"""Metrics of each PBX, as a worker concludes them from its callbacks."""

from __future__ import annotations

from shared.metrics.rows import SOURCE, Label, Role, counter, gauge, measurement

_CONDITIONS = (
    *("broker_away", "spooling", "spool_full", "source_silent"),
    *("dead_letters_growing", "state_rebuilt", "archive_away", "certificate_expiring"),
)

PBX_CLOCK_OFFSET = measurement(
    "callfold_pbx_clock_offset_seconds",
    "Seconds by which the clock of a source's PBX is ahead of that of ingress.",
    Role.WORKER,
    labels=(SOURCE,),
)
PBX_CLOCK_DRIFT = measurement(
    "callfold_pbx_clock_drift_ratio",
    "Seconds by which the clock of a source's PBX moves away from that of ingress in one second.",
    Role.WORKER,
    labels=(SOURCE,),
)
PBX_SILENT = gauge(
    "callfold_pbx_silent",
    "1 while a source is silent against its own habit.",
    Role.WORKER,
    labels=(SOURCE,),
)
PBX_SILENT_SECONDS = measurement(
    "callfold_pbx_silent_seconds", "Seconds since the last callback of a source.", Role.WORKER, labels=(SOURCE,)
)
PBX_UNHEARD_DIALS = counter(
    "callfold_pbx_unheard_dials_total", "Dials of which no callback arrived within 5 minutes.", Role.WORKER, labels=(SOURCE,)
)
PBX_LOST_CALLBACKS = measurement(
    "callfold_pbx_lost_callbacks_ratio",
    "Estimated share of the callbacks of a source that never arrived, in about the last 24 hours.",
    Role.WORKER,
    labels=(SOURCE,),
)
PBX_LOST_CALLBACKS_LOW = measurement(
    "callfold_pbx_lost_callbacks_low_ratio",
    "Lower bound of that share: with 95 % confidence, at least so many are lost.",
    Role.WORKER,
    labels=(SOURCE,),
)
PBX_REQUEST_ID_GAPS = counter(
    "callfold_pbx_request_id_gaps_total",
    "RequestIDs that a source skipped, if it usually skips none.",
    Role.WORKER,
    labels=(SOURCE,),
)
PBX_ADAPTER_CHANGED = gauge(
    "callfold_pbx_adapter_changed",
    "1 while the callbacks of a source have other parameters than its adapter link.",
    Role.WORKER,
    labels=(SOURCE,),
)
OPS_CONDITIONS = gauge(
    "callfold_ops_conditions",
    "Conditions of operator events that are raised now.",
    Role.INGRESS,
    Role.WORKER,
    labels=(Label("condition", _CONDITIONS),),
)
