"""Metrics of recording jobs."""

from __future__ import annotations

from shared.metrics.folding import RECORDING_REASONS
from shared.metrics.rows import SOURCE, Label, Role, counter, gauge, measurement

RECORDINGS = counter(
    "callfold_recordings_total",
    "Recording jobs by result.",
    Role.WORKER,
    labels=(SOURCE, Label("result", ("stored", "absent", "failed", "expired"))),
    remark="`result`: `stored`, `absent`, `failed` or `expired`.",
)
RECORDING_ATTEMPTS_FAILED = counter(
    "callfold_recording_tries_failed_total",
    "Failed attempts of recording jobs.",
    Role.WORKER,
    labels=(SOURCE, Label("reason", RECORDING_REASONS)),
    remark="`reason`: see [recordings.md](recordings.md#attempts-and-reasons).",
)
RECORDINGS_HELD = gauge(
    "callfold_recordings_held",
    "1 while this worker consumes no recording jobs because the archive cannot be written.",
    Role.WORKER,
)
RECORDINGS_WAITING = measurement(
    "callfold_recordings_waiting", "Recording jobs in the queue `recordings` and in its retry queues.", Role.CONSOLE
)
RECORDINGS_OLDEST = measurement(
    "callfold_recordings_oldest_seconds",
    "Age of the oldest recording job that is not finished, 0 if there is none.",
    Role.CONSOLE,
    remark="It counts from the first delivery to a worker.",
)
