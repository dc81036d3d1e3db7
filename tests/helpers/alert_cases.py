"""Cases for each alert of deploy/prometheus/rules.yml: series that differ from a healthy installation, and what fires then.

tests/deploy has promtool evaluate them. A case lists every alert that fires, so that it also says which ones stay silent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

STEP_S = 15
_SAMPLES = 720
"""Three hours, longer than any case."""

Values = Mapping[str, str]
"""The values of series by their selector, in the notation of promtool."""


def _target(role: str, instance: str) -> str:
    return f'job="callfold-{role}", instance="{instance}"'


INGRESS, WORKER, WORKER_2 = _target("ingress", "ingress-1"), _target("worker", "worker-1"), _target("worker", "worker-2")
CONSOLE, HISTORY = _target("console", "console-1"), _target("history", "history-1")
FORWARD = _target("forward", "forward-1")

_OF_TARGETS: dict[str, dict[str, float]] = {
    INGRESS: {
        "callfold_broker_up": 1,
        "callfold_spool_usable{file='callbacks'}": 1,
        "callfold_spool_bytes": 0,
        "callfold_spool_max_bytes": 1e9,
        "callfold_spool_oldest_seconds": 0,
        "callfold_spooled_messages_total": 7,
        "callfold_queue_full{queue='callbacks.fold'}": 0,
        "callfold_sources_reload_failed": 0,
        "callfold_loop_step_cpu_seconds_max": 0.02,
        "callfold_callbacks_refused_total{reason='wrong_secret'}": 3,
        "callfold_callbacks_refused_total{reason='unknown_source'}": 3,
        "callfold_callback_secrets_total{source='acme', which='previous'}": 5,
        "callfold_dead_letters_total{queue='callbacks.dead', reason='invalid_callback'}": 4,
    },
    WORKER: {
        "callfold_broker_up": 1,
        "callfold_redis_up": 1,
        "callfold_fold_lag_seconds": 2,
        "callfold_timers_held": 0,
        "callfold_partitions_rebuilding": 0,
        "callfold_rebuilds_total{result='finished'}": 2,
        "callfold_recordings_held": 0,
        "callfold_ops_conditions{condition='archive_away'}": 0,
        "callfold_recordings_total{source='acme', result='failed'}": 6,
        "callfold_recording_tries_failed_total{source='acme', reason='not_found'}": 90,
        "callfold_recording_tries_failed_total{source='acme', reason='not_allowed'}": 9,
        "callfold_recording_tries_failed_total{source='acme', reason='archive_unavailable'}": 1,
        "callfold_policies_missing": 0,
        "callfold_harmful_policies": 0,
        "callfold_sources_reload_failed": 0,
        "callfold_clock_offset_seconds": 0.01,
        "callfold_ingress_clock_offset_seconds{machine='ingress-1'}": 0.01,
        "callfold_certificate_expiry_timestamp_seconds{server='amqps://rabbitmq'}": 90 * 86400,
        "callfold_pbx_silent{source='acme'}": 0,
        "callfold_pbx_unheard_dials_total{source='acme'}": 1,
        "callfold_pbx_lost_callbacks_ratio{source='acme'}": 0.001,
        "callfold_pbx_lost_callbacks_low_ratio{source='acme'}": 0.0002,
        "callfold_pbx_adapter_changed{source='acme'}": 0,
        "callfold_pbx_clock_drift_ratio{source='acme'}": 0.00001,
        "callfold_placeholders_unreplaced_total{source='acme', placeholder='CallID'}": 1,
    },
    WORKER_2: {"callfold_broker_up": 1, "callfold_redis_up": 1, "callfold_fold_lag_seconds": 1, "callfold_timers_held": 0},
    CONSOLE: {
        "callfold_broker_up": 1,
        "callfold_redis_up": 1,
        "callfold_queue_messages{queue='callbacks.dead'}": 0,
        "callfold_queue_messages{queue='recordings.dead'}": 12,
        "callfold_queue_messages{queue='forward.dead'}": 0,
        "callfold_queue_messages{queue='recordings'}": 9,
        "callfold_recordings_oldest_seconds": 600,
        "callfold_sources_reload_failed": 0,
    },
    HISTORY: {"callfold_broker_up": 1, "callfold_history_lag_seconds{stream='calls.journal'}": 0},
    FORWARD: {
        "callfold_broker_up": 1,
        "callfold_forward_attempts_total{endpoint='crm', result='delivered'}": 100,
        "callfold_forward_attempts_total{endpoint='crm', result='retry'}": 7,
        "callfold_forward_attempts_total{endpoint='crm', result='dead'}": 0,
        "callfold_forward_attempts_total{endpoint='crm', result='disabled'}": 0,
        "callfold_forward_breaker_open{endpoint='crm'}": 0,
        "callfold_forward_waiting{endpoint='crm'}": 3,
    },
}


def of(target: str, metric: str) -> str:
    """Name a series: a metric of a target, with its further labels in single quotes."""
    name, _, labels = metric.partition("{")
    further = labels.rstrip("}").replace("'", '"')
    return f"{name}{{{', '.join(filter(None, (target, further)))}}}"


def _up(target: str) -> str:
    return of(target, "up")


def _build(target: str) -> str:
    role = target.partition("callfold-")[2].partition('"')[0]
    return of(target, f"callfold_build_info{{role='{role}', version='1', python='3'}}")


def healthy() -> dict[str, str]:
    """Return the series of an installation in which nothing is wrong."""
    series: dict[str, str] = {}
    for target, metrics in _OF_TARGETS.items():
        series |= {_up(target): f"1x{_SAMPLES}", _build(target): f"1x{_SAMPLES}"}
        series |= {of(target, metric): f"{value:g}x{_SAMPLES}" for metric, value in metrics.items()}
    return series


def gone(*targets: str, after: int = 40) -> Values:
    """Let targets stop to answer: `up` is 0, and their series become stale."""
    changed: dict[str, str] = {}
    for target in targets:
        changed[_up(target)] = f"1x{after} 0x{_SAMPLES}"
        changed[_build(target)] = f"1x{after} stale"
        changed |= {of(target, metric): f"{value:g}x{after} stale" for metric, value in _OF_TARGETS[target].items()}
    return changed


def then(before: float, after: str, *, samples: int = 40) -> str:
    """Write values that change after ten minutes."""
    return f"{before:g}x{samples} {after}"


def twin(target: str) -> Values:
    """Add a healthy process of the same role."""
    other = target.replace("-1", "-2")
    metrics = {of(other, metric): f"{value:g}x{_SAMPLES}" for metric, value in _OF_TARGETS[target].items()}
    return {_up(other): f"1x{_SAMPLES}", _build(other): f"1x{_SAMPLES}", **metrics}


@dataclass(frozen=True, slots=True)
class Case:
    """One situation.

    Attributes:
        what: the situation; it names the case.
        changed: the series that are not as in a healthy installation. An empty value removes a series.
        fires: every alert that fires then, as `Name` or `Name/severity`.
        of: the alert that the case is about, if it is not the first that fires.
        at: the time of the evaluation. Faults begin after ten minutes.
    """

    what: str
    changed: Values
    fires: tuple[str, ...] = ()
    of: str = ""
    at: str = "12m30s"

    @property
    def alert(self) -> str:
        return self.of or self.fires[0].partition("/")[0]

    def series(self) -> dict[str, str]:
        """Return all series, as long as the case."""
        parts = re.findall(r"(\d+)([hms])", self.at)
        samples = sum(int(number) * {"h": 3600, "m": 60, "s": 1}[unit] for number, unit in parts) // STEP_S + 1
        every = healthy() | dict(self.changed)
        return {name: values.replace(f"x{_SAMPLES}", f"x{samples}") for name, values in every.items() if values}


def _is(target: str, metric: str, after: str) -> Values:
    before = _OF_TARGETS[target][metric]
    return {of(target, metric): then(before, after)}


def _now(target: str, metric: str, value: float) -> Values:
    return _is(target, metric, f"{value:g}x{_SAMPLES}")


def _rise(target: str, metric: str, by: float) -> Values:
    """Let a counter rise once, after ten minutes."""
    return _now(target, metric, _OF_TARGETS[target][metric] + by)


def _vanished(target: str, metric: str) -> Values:
    return {of(target, metric): f"{_OF_TARGETS[target][metric]:g}x40 stale"}


_EVERY_BROKER = {key: value for target in _OF_TARGETS for key, value in _now(target, "callfold_broker_up", 0).items()}
_EVERY_REDIS = {
    key: value for target in (WORKER, WORKER_2, CONSOLE) for key, value in _now(target, "callfold_redis_up", 0).items()
}
_LAG = {**_is(WORKER, "callfold_fold_lag_seconds", "2+15x300"), **_is(WORKER_2, "callfold_fold_lag_seconds", "2+15x300")}
_HELD = {**_now(WORKER, "callfold_timers_held", 1), **_now(WORKER_2, "callfold_timers_held", 1)}
_SPOOLING = {**_is(INGRESS, "callfold_spooled_messages_total", "7+5x300"), **_is(INGRESS, "callfold_spool_bytes", "0+90000x300")}
_SILENT = _now(WORKER, "callfold_pbx_silent{source='acme'}", 1)
_WAITING = _is(CONSOLE, "callfold_queue_messages{queue='recordings'}", "9+20x300")
_REFUSED = "callfold_callbacks_refused_total{reason='wrong_secret'}"
_SCANNED = "callfold_callbacks_refused_total{reason='unknown_source'}"
_DEAD = "callfold_queue_messages{queue='callbacks.dead'}"
_DEAD_TOTAL = "callfold_dead_letters_total{queue='callbacks.dead', reason='invalid_callback'}"
_PREVIOUS = "callfold_callback_secrets_total{source='acme', which='previous'}"
_EXPIRY = "callfold_certificate_expiry_timestamp_seconds{server='amqps://rabbitmq'}"
_FAILED = "callfold_recordings_total{source='acme', result='failed'}"
_NOT_FOUND = "callfold_recording_tries_failed_total{source='acme', reason='not_found'}"
_NOT_ALLOWED = "callfold_recording_tries_failed_total{source='acme', reason='not_allowed'}"
_NO_ARCHIVE = "callfold_recording_tries_failed_total{source='acme', reason='archive_unavailable'}"
_HISTORY_LAG = "callfold_history_lag_seconds{stream='calls.journal'}"
_INGRESS_CLOCK = "callfold_ingress_clock_offset_seconds{machine='ingress-1'}"
_WEBHOOK_DEAD = "callfold_queue_messages{queue='forward.dead'}"
_DELIVERED = "callfold_forward_attempts_total{endpoint='crm', result='delivered'}"
_RETRIED = "callfold_forward_attempts_total{endpoint='crm', result='retry'}"
_GIVEN_UP = "callfold_forward_attempts_total{endpoint='crm', result='dead'}"
_GONE = "callfold_forward_attempts_total{endpoint='crm', result='disabled'}"
_BREAKER = "callfold_forward_breaker_open{endpoint='crm'}"
_UNREPLACED = "callfold_placeholders_unreplaced_total{source='acme', placeholder='CallID'}"

CASES = (
    # Processes
    Case("the only ingress is gone", gone(INGRESS), ("CallfoldIngressDown/critical",)),
    Case(
        "ingress was never there",
        {of(INGRESS, m): "" for m in _OF_TARGETS[INGRESS]} | {_up(INGRESS): "", _build(INGRESS): ""},
        ("CallfoldIngressDown/critical",),
    ),
    Case("an ingress is away for half a minute", gone(INGRESS), of="CallfoldIngressDown", at="10m45s"),
    Case("one ingress of two is gone", {**gone(INGRESS), **twin(INGRESS)}, ("CallfoldIngressDown/warning",), at="16m"),
    Case(
        "an ingress was scaled in",
        {**gone(INGRESS), **twin(INGRESS), _up(INGRESS): "1x40 stale"},
        of="CallfoldIngressDown",
        at="20m",
    ),
    Case("all workers are gone", gone(WORKER, WORKER_2), ("CallfoldWorkerDown/critical",)),
    Case("one worker of two is gone", gone(WORKER_2), ("CallfoldWorkerDown/warning",), at="16m"),
    Case("a worker is replaced within a minute", gone(WORKER_2), of="CallfoldWorkerDown", at="14m"),
    Case("the console is gone", gone(CONSOLE), ("CallfoldConsoleDown/critical",)),
    Case("one console of two is gone", {**gone(CONSOLE), **twin(CONSOLE)}, ("CallfoldConsoleDown/warning",), at="16m"),
    Case("the console restarts", gone(CONSOLE), of="CallfoldConsoleDown", at="10m45s"),
    Case(
        "there never was a console",
        {of(CONSOLE, m): "" for m in _OF_TARGETS[CONSOLE]} | {_up(CONSOLE): "", _build(CONSOLE): ""},
        of="CallfoldConsoleDown",
        at="30m",
    ),
    Case("the history is gone", gone(HISTORY), ("CallfoldHistoryDown",)),
    Case(
        "there never was a history",
        {of(HISTORY, m): "" for m in _OF_TARGETS[HISTORY]} | {_up(HISTORY): "", _build(HISTORY): ""},
        of="CallfoldHistoryDown",
        at="30m",
    ),
    Case("all forwarders are gone", gone(FORWARD), ("CallfoldForwardDown/critical",)),
    Case("one forwarder of two is gone", {**gone(FORWARD), **twin(FORWARD)}, ("CallfoldForwardDown/warning",), at="16m"),
    Case("a forwarder restarts", gone(FORWARD), of="CallfoldForwardDown", at="10m45s"),
    Case(
        "there never was a forwarder",
        {of(FORWARD, m): "" for m in _OF_TARGETS[FORWARD]} | {_up(FORWARD): "", _build(FORWARD): ""},
        of="CallfoldForwardDown",
        at="30m",
    ),
    Case(
        "a relabeling drops the fold lag",
        {**_vanished(WORKER, "callfold_fold_lag_seconds"), **_vanished(WORKER_2, "callfold_fold_lag_seconds")},
        ("CallfoldMetricMissing",),
        at="16m",
    ),
    Case(
        "a relabeling drops the size of the spool",
        _vanished(INGRESS, "callfold_spool_bytes"),
        ("CallfoldMetricMissing",),
        at="16m",
    ),
    Case(
        "a relabeling drops the depth of queues",
        {
            **_vanished(CONSOLE, _DEAD),
            **_vanished(CONSOLE, "callfold_queue_messages{queue='recordings.dead'}"),
            **_vanished(CONSOLE, _WEBHOOK_DEAD),
            **_vanished(CONSOLE, "callfold_queue_messages{queue='recordings'}"),
        },
        ("CallfoldMetricMissing",),
        at="16m",
    ),
    Case("a relabeling drops the lag of the history", _vanished(HISTORY, _HISTORY_LAG), ("CallfoldMetricMissing",), at="16m"),
    Case(
        "one worker of two lacks the fold lag",
        _vanished(WORKER, "callfold_fold_lag_seconds"),
        of="CallfoldMetricMissing",
        at="16m",
    ),
    Case("a step takes two seconds", _now(INGRESS, "callfold_loop_step_cpu_seconds_max", 2), ("CallfoldEventLoopBlocked",)),
    Case(
        "timers are late by seconds",
        {
            of(CONSOLE, "callfold_loop_lag_seconds_bucket{le='0.1'}"): "0x40 0x300",
            of(CONSOLE, "callfold_loop_lag_seconds_bucket{le='1'}"): "0x40 0x300",
            of(CONSOLE, "callfold_loop_lag_seconds_bucket{le='5'}"): "0x40 0+9x300",
            of(CONSOLE, "callfold_loop_lag_seconds_bucket{le='+Inf'}"): "0x40 0+9x300",
        },
        ("CallfoldEventLoopBlocked",),
        at="13m30s",
    ),
    Case("a step takes half a second", _now(INGRESS, "callfold_loop_step_cpu_seconds_max", 0.5), of="CallfoldEventLoopBlocked"),
    # Servers
    Case(
        "RabbitMQ is away, so ingress spools and nothing is folded",
        {
            **_EVERY_BROKER,
            **_LAG,
            **_HELD,
            **_SPOOLING,
            **_SILENT,
            **_WAITING,
            **_vanished(CONSOLE, _DEAD),
            **_vanished(CONSOLE, "callfold_queue_messages{queue='recordings.dead'}"),
            **_vanished(CONSOLE, _WEBHOOK_DEAD),
            **_vanished(CONSOLE, "callfold_queue_messages{queue='recordings'}"),
            **_now(HISTORY, _HISTORY_LAG, 900),
        },
        ("CallfoldBrokerAway",),
        at="25m",
    ),
    Case(
        "RabbitMQ is back, and its consequences wear off",
        {**{key: value.replace(f"0x{_SAMPLES}", f"0x20 1x{_SAMPLES}") for key, value in _EVERY_BROKER.items()}, **_LAG, **_HELD},
        of="CallfoldBrokerAway",
        at="17m",
    ),
    Case(
        "a console alone cannot use RabbitMQ, and the fold is late",
        {**_now(CONSOLE, "callfold_broker_up", 0), **_LAG},
        ("CallfoldBrokerAway", "CallfoldFoldLag"),
        at="20m",
    ),
    Case("RabbitMQ restarts within a minute", _EVERY_BROKER, of="CallfoldBrokerAway", at="10m45s"),
    Case(
        "Redis is away, so nothing is folded",
        {**_EVERY_REDIS, **_LAG, **_HELD, **_SILENT, **_WAITING},
        ("CallfoldRedisAway",),
        at="25m",
    ),
    Case("Redis fails over within a minute", _EVERY_REDIS, of="CallfoldRedisAway", at="10m45s"),
    Case(
        "the queue is full, so ingress spools and workers are late",
        {**_now(INGRESS, "callfold_queue_full{queue='callbacks.fold'}", 1), **_LAG, **_SPOOLING},
        ("CallfoldQueueFull",),
        at="20m",
    ),
    Case(
        "the queue is full for some seconds",
        {of(INGRESS, "callfold_queue_full{queue='callbacks.fold'}"): f"0x40 1x1 0x{_SAMPLES}"},
        of="CallfoldQueueFull",
    ),
    Case("policies were not imported", _now(WORKER, "callfold_policies_missing", 3), ("CallfoldPolicyMissing",)),
    Case(
        "policies were imported again",
        {of(WORKER, "callfold_policies_missing"): f"3x40 0x{_SAMPLES}"},
        of="CallfoldPolicyMissing",
    ),
    Case("a policy expires messages", _now(WORKER, "callfold_harmful_policies", 1), ("CallfoldPolicyHarmful",)),
    Case(
        "a policy expires messages of another program", _now(WORKER, "callfold_harmful_policies", 0), of="CallfoldPolicyHarmful"
    ),
    Case(
        "Redis was emptied, and its rebuild takes long",
        {**_now(WORKER, "callfold_partitions_rebuilding", 16), **_LAG},
        ("CallfoldStateRebuilding",),
        at="20m",
    ),
    Case(
        "Redis was emptied, and rebuilt between two scrapes",
        _rise(WORKER, "callfold_rebuilds_total{result='finished'}", 1),
        ("CallfoldStateRebuilding",),
    ),
    Case(
        "the last rebuild is ten minutes ago",
        _rise(WORKER, "callfold_rebuilds_total{result='finished'}", 1),
        of="CallfoldStateRebuilding",
        at="20m",
    ),
    Case("a worker's clock is ahead", _now(WORKER, "callfold_clock_offset_seconds", 3), ("CallfoldClockOffset",), at="16m"),
    Case("an ingress's clock is behind", _now(WORKER, _INGRESS_CLOCK, -2), ("CallfoldClockOffset",), at="16m"),
    Case("a clock is off by half a second", _now(WORKER, _INGRESS_CLOCK, -0.5), of="CallfoldClockOffset", at="16m"),
    Case("a certificate expires in ten days", _now(WORKER, _EXPIRY, 10 * 86400), ("CallfoldCertificateExpiring/warning",)),
    Case(
        "a certificate expires tomorrow",
        _now(WORKER, _EXPIRY, 86400),
        ("CallfoldCertificateExpiring/critical", "CallfoldCertificateExpiring/warning"),
    ),
    Case("a certificate expires in three weeks", _now(WORKER, _EXPIRY, 21 * 86400), of="CallfoldCertificateExpiring"),
    Case("no certificate is known", _now(WORKER, _EXPIRY, 0), of="CallfoldCertificateExpiring"),
    # Ingress
    Case("ingress spools although RabbitMQ is up", _SPOOLING, ("CallfoldSpooling",), at="13m"),
    Case("the spool is not drained", _now(INGRESS, "callfold_spool_oldest_seconds", 900), ("CallfoldSpooling",)),
    Case("a few callbacks were spooled", _rise(INGRESS, "callfold_spooled_messages_total", 3), of="CallfoldSpooling", at="14m"),
    Case("the spool is half full", _now(INGRESS, "callfold_spool_bytes", 6e8), ("CallfoldSpoolFilling",)),
    Case(
        "the spool will be full within an hour",
        _is(INGRESS, "callfold_spool_bytes", "0+6e6x300"),
        ("CallfoldSpoolFilling",),
        at="18m",
    ),
    Case("the spool is small", _now(INGRESS, "callfold_spool_bytes", 5e7), of="CallfoldSpoolFilling"),
    Case(
        "RabbitMQ is away, and the spool fills",
        {**_EVERY_BROKER, **_now(INGRESS, "callfold_spool_bytes", 6e8)},
        ("CallfoldBrokerAway", "CallfoldSpoolFilling"),
        of="CallfoldSpoolFilling",
    ),
    Case(
        "the disk of the spool is read-only",
        _now(INGRESS, "callfold_spool_usable{file='callbacks'}", 0),
        ("CallfoldSpoolUnusable",),
    ),
    Case(
        "the spool cannot be written for some seconds",
        {of(INGRESS, "callfold_spool_usable{file='callbacks'}"): f"1x40 0x1 1x{_SAMPLES}"},
        of="CallfoldSpoolUnusable",
    ),
    Case("a callback has a wrong secret", _rise(INGRESS, _REFUSED, 1), ("CallfoldCallbacksRefused",)),
    Case("many requests name no source", _rise(INGRESS, _SCANNED, 90), ("CallfoldCallbacksRefused",)),
    Case("a scanner looks for pages", _rise(INGRESS, _SCANNED, 20), of="CallfoldCallbacksRefused"),
    Case("the last refusal is ten minutes ago", _rise(INGRESS, _REFUSED, 1), of="CallfoldCallbacksRefused", at="20m"),
    Case("the sources file has a fault", _now(INGRESS, "callfold_sources_reload_failed", 1), ("CallfoldSourcesFileInvalid",)),
    Case(
        "the sources file is corrected at once",
        {of(INGRESS, "callfold_sources_reload_failed"): f"0x40 1x1 0x{_SAMPLES}"},
        of="CallfoldSourcesFileInvalid",
    ),
    Case("a source sends its previous secret", _rise(INGRESS, _PREVIOUS, 2), ("CallfoldPreviousSecretUsed",)),
    Case("the previous secret was used two hours ago", _rise(INGRESS, _PREVIOUS, 2), of="CallfoldPreviousSecretUsed", at="2h"),
    # Fold
    Case("workers are too slow", _LAG, ("CallfoldFoldLag",), at="16m"),
    Case("workers are behind for a minute", _LAG, of="CallfoldFoldLag", at="11m45s"),
    Case(
        "all workers are gone, and callbacks wait",
        {**gone(WORKER, WORKER_2), **_WAITING},
        ("CallfoldWorkerDown/critical",),
        at="40m",
        of="CallfoldFoldLag",
    ),
    Case("every worker holds its timers", _HELD, ("CallfoldTimersHeld",)),
    Case("one worker of two holds its timers", _now(WORKER, "callfold_timers_held", 1), of="CallfoldTimersHeld", at="20m"),
    Case("a callback is a dead letter", _now(CONSOLE, _DEAD, 1), ("CallfoldDeadLetters",)),
    Case(
        "a callback becomes a dead letter while no console runs",
        {**gone(CONSOLE), **_rise(INGRESS, _DEAD_TOTAL, 1)},
        ("CallfoldConsoleDown/critical", "CallfoldDeadLetters"),
        of="CallfoldDeadLetters",
    ),
    Case("a dead letter was redriven", _rise(INGRESS, _DEAD_TOTAL, 1), of="CallfoldDeadLetters"),
    # Recordings
    Case("a recording failed for good", _rise(WORKER, _FAILED, 1), ("CallfoldRecordingsFailing",)),
    Case("the PBX refuses downloads", _rise(WORKER, _NOT_ALLOWED, 4), ("CallfoldRecordingsFailing",)),
    Case("recordings do not exist yet", _rise(WORKER, _NOT_FOUND, 40), of="CallfoldRecordingsFailing"),
    Case("one attempt failed", _rise(WORKER, _NOT_ALLOWED, 1), of="CallfoldRecordingsFailing"),
    Case("recordings wait for a worker", _WAITING, ("CallfoldRecordingsWaiting",), at="35m"),
    Case(
        "many jobs wait for a worker and become fewer",
        _is(CONSOLE, "callfold_queue_messages{queue='recordings'}", "9000-20x300"),
        of="CallfoldRecordingsWaiting",
        at="35m",
    ),
    Case(
        "a recording waits for ten hours",
        _now(CONSOLE, "callfold_recordings_oldest_seconds", 36000),
        ("CallfoldRecordingsWaiting",),
    ),
    Case(
        "a recording waits for its last retry",
        _now(CONSOLE, "callfold_recordings_oldest_seconds", 25000),
        of="CallfoldRecordingsWaiting",
    ),
    Case(
        "the archive is away since a worker started, so recordings wait",
        {**_now(WORKER, "callfold_recordings_held", 1), **_WAITING},
        ("CallfoldArchiveAway",),
        at="35m",
    ),
    Case(
        "checks of the archive fail, so recordings wait",
        {**_now(WORKER, "callfold_ops_conditions{condition='archive_away'}", 1), **_WAITING},
        ("CallfoldArchiveAway",),
        at="35m",
    ),
    Case("a recording could not be written to the archive", _rise(WORKER, _NO_ARCHIVE, 1), ("CallfoldArchiveAway",)),
    Case("the archive failed ten minutes ago", _rise(WORKER, _NO_ARCHIVE, 1), of="CallfoldArchiveAway", at="20m"),
    # History
    Case("the history is ten minutes behind", _now(HISTORY, _HISTORY_LAG, 600), ("CallfoldHistoryLag/warning",)),
    Case(
        "the history is five days behind",
        _now(HISTORY, _HISTORY_LAG, 5 * 86400),
        ("CallfoldHistoryLag/critical", "CallfoldHistoryLag/warning"),
    ),
    Case("the history is a minute behind", _now(HISTORY, _HISTORY_LAG, 60), of="CallfoldHistoryLag"),
    # Webhooks
    Case("the breaker of a webhook is open", _now(FORWARD, _BREAKER, 1), ("CallfoldWebhookFailing",), at="22m"),
    Case("the breaker of a webhook was open for a while", _now(FORWARD, _BREAKER, 1), of="CallfoldWebhookFailing", at="15m"),
    Case("every delivery to a webhook fails", _is(FORWARD, _RETRIED, "7+1x300"), ("CallfoldWebhookFailing",), at="13m"),
    Case(
        "some deliveries to a webhook fail",
        {**_is(FORWARD, _RETRIED, "7+1x300"), **_is(FORWARD, _DELIVERED, "100+1x300")},
        of="CallfoldWebhookFailing",
        at="13m",
    ),
    Case("a webhook answered 410", _now(FORWARD, _GONE, 1), ("CallfoldWebhookDisabled",)),
    Case("a webhook answered 410 two hours ago", _now(FORWARD, _GONE, 1), of="CallfoldWebhookDisabled", at="2h10m"),
    Case("an event for a webhook is a dead letter", _now(CONSOLE, _WEBHOOK_DEAD, 1), ("CallfoldWebhookDeadLetters",)),
    Case(
        "an event for a webhook becomes a dead letter while no console runs",
        {**gone(CONSOLE), **_rise(FORWARD, _GIVEN_UP, 1)},
        ("CallfoldConsoleDown/critical", "CallfoldWebhookDeadLetters"),
        of="CallfoldWebhookDeadLetters",
    ),
    Case("the dead letters of a webhook were redriven", _rise(FORWARD, _GIVEN_UP, 1), of="CallfoldWebhookDeadLetters"),
    # PBX
    Case("a PBX is silent", _SILENT, ("CallfoldPbxSilent",)),
    Case(
        "a PBX is silent because ingress is gone",
        {**gone(INGRESS), **_SILENT},
        ("CallfoldIngressDown/critical",),
        of="CallfoldPbxSilent",
    ),
    Case("a PBX is silent for half a minute", _SILENT, of="CallfoldPbxSilent", at="10m45s"),
    Case(
        "nothing is heard of dials",
        _rise(WORKER, "callfold_pbx_unheard_dials_total{source='acme'}", 4),
        ("CallfoldPbxDialsUnheard",),
    ),
    Case(
        "nothing is heard of one dial",
        _rise(WORKER, "callfold_pbx_unheard_dials_total{source='acme'}", 1),
        of="CallfoldPbxDialsUnheard",
    ),
    Case(
        "a PBX loses callbacks",
        _now(WORKER, "callfold_pbx_lost_callbacks_low_ratio{source='acme'}", 0.02),
        ("CallfoldPbxLosingCallbacks",),
        at="16m",
    ),
    Case(
        "a PBX seems to lose 4 %, but may lose 1 %",
        {
            **_now(WORKER, "callfold_pbx_lost_callbacks_ratio{source='acme'}", 0.04),
            **_now(WORKER, "callfold_pbx_lost_callbacks_low_ratio{source='acme'}", 0.0199),
        },
        of="CallfoldPbxLosingCallbacks",
        at="16m",
    ),
    Case(
        "an adapter link was changed",
        _now(WORKER, "callfold_pbx_adapter_changed{source='acme'}", 1),
        ("CallfoldPbxAdapterChanged",),
    ),
    Case("a placeholder arrives unreplaced", _rise(WORKER, _UNREPLACED, 1), ("CallfoldPbxAdapterChanged",)),
    Case(
        "a placeholder arrived unreplaced two hours ago", _rise(WORKER, _UNREPLACED, 1), of="CallfoldPbxAdapterChanged", at="2h"
    ),
    Case(
        "the clock of a PBX runs too fast",
        _now(WORKER, "callfold_pbx_clock_drift_ratio{source='acme'}", 0.001),
        ("CallfoldPbxClockDrift",),
        at="41m",
    ),
    Case(
        "the clock of a PBX runs well",
        _now(WORKER, "callfold_pbx_clock_drift_ratio{source='acme'}", 0.00005),
        of="CallfoldPbxClockDrift",
        at="41m",
    ),
)
