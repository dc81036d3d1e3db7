"""The table of metrics, and what a process exports of it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from console.dialing.focalscope import DialState
from console.web.slots import _AT_ONCE
from ingress.source_secrets import Which
from shared import metrics
from shared.amqp.dead_letters import DeadLetterReason
from shared.amqp.topology import AUDIT_JOURNAL, CALLBACKS_DEAD, CALLBACKS_FOLD, CALLS_JOURNAL, FORWARD_JOURNAL, RECORDINGS_DEAD
from shared.domain.call import Status
from shared.domain.recording_reasons import Reason
from shared.metrics import TABLE, Export, Kind, Role
from shared.metrics.rows import SOURCE
from tests.helpers.metrics import first_series, names_of, role_of, series_of
from worker.download.failures import Result

_SOURCES = ("acme", "other")
_NEW = {
    ("callfold_callbacks_total", frozenset({("source", "other"), ("result", result)}))
    for result in ("accepted", "invalid", "wrong_secret", "limited", "unavailable")
}
_FRESH = """
import asyncio, sys
from shared.metrics import Export, Role
export = Export(Role(sys.argv[1]))
export.add_sources(["acme"])
export.add_sources(["acme", "other"])  # a reload
sys.stdout.buffer.write(asyncio.run(export.render(""))[0])
"""


@pytest.mark.parametrize("role", Role)
def test_a_process_exports_its_own_rows_alone_and_every_series_from_the_start_at_0(role: Role) -> None:
    text = subprocess.run([sys.executable, "-c", _FRESH, role], capture_output=True, check=True, timeout=60).stdout.decode()
    series = series_of(text)
    assert role_of(series) is role
    own = {row.name for row in TABLE.values() if role in row.roles}
    assert names_of(series) <= own
    families = {line.split()[2].removesuffix("_total") for line in text.splitlines() if line.startswith("# TYPE callfold_")}
    assert families == {name.removesuffix("_total") for name in own}, "also a row without series has its help"
    build_info = {each for each in series if each[0] == "callfold_build_info"}
    assert series.keys() - build_info == first_series(role, _SOURCES)
    assert role is not Role.INGRESS or series.keys() >= _NEW, "also of a source that a reload adds"
    assert {series[each] for each in series.keys() - build_info} == {0.0}
    assert "_created" not in text


def test_labels_with_known_values_have_those_that_the_code_uses() -> None:
    values = {(row.name, label.name): set(label.values) for row in TABLE.values() for label in row.labels}
    assert values["callfold_recording_tries_failed_total", "reason"] == set(Reason)
    assert values["callfold_recordings_total", "result"] == {*Result, "expired"}
    assert values["callfold_open_calls", "status"] == set(Status) - {Status.COMPLETE}
    assert values["callfold_callback_secrets_total", "which"] == set(Which)
    assert values["callfold_dials_total", "state"] == {"accepted", *DialState}
    assert values["callfold_console_refused_total", "kind"] == set(_AT_ONCE)
    assert values["callfold_queue_full", "queue"] == {CALLBACKS_FOLD}
    assert values["callfold_history_lag_seconds", "stream"] == {CALLS_JOURNAL, AUDIT_JOURNAL, FORWARD_JOURNAL}
    of_rabbitmq = {DeadLetterReason.DELIVERY_LIMIT, DeadLetterReason.MAXLEN}
    of_jobs = {DeadLetterReason.JOB_FAILED, DeadLetterReason.UNDECODABLE}
    of_webhooks = {DeadLetterReason.FORWARD_FAILED, DeadLetterReason.ENDPOINT_REMOVED}
    pairs = TABLE["callfold_dead_letters_total"].pairs
    assert {reason for queue, reason in pairs if queue == CALLBACKS_DEAD} == set(DeadLetterReason) - of_rabbitmq - of_webhooks - {
        DeadLetterReason.JOB_FAILED
    }
    assert {reason for queue, reason in pairs if queue == RECORDINGS_DEAD} == set(Reason) | of_jobs


def test_names_and_labels_follow_the_conventions() -> None:
    for row in TABLE.values():
        assert row.name.startswith("callfold_")
        assert row.name.endswith("_total") == (row.kind is Kind.COUNTER), row.name
        assert row.roles, row.name
        assert not row.has_source or row.labels[0] is SOURCE, row.name
        assert row.help.endswith("."), row.name
        assert (row.kind is Kind.HISTOGRAM) == bool(row.buckets), row.name
    assert {row.unit for row in TABLE.values()} == {"", "seconds", "bytes", "ratio", "timestamp_seconds"}


async def test_a_measurement_has_no_series_while_its_value_is_unknown() -> None:
    (row,) = [row for row in TABLE.values() if row.name == "callfold_queue_oldest_seconds"]
    export = Export(Role.CONSOLE)
    metrics.QUEUE_OLDEST.set(2.5, "callbacks.fold")
    metrics.QUEUE_OLDEST.set(0, "callbacks.dead")
    shown = {
        labels: value for (name, labels), value in series_of((await export.render(""))[0].decode()).items() if name == row.name
    }
    assert shown == {frozenset({("queue", "callbacks.fold")}): 2.5, frozenset({("queue", "callbacks.dead")}): 0}
    metrics.QUEUE_OLDEST.set(None, "callbacks.fold")
    assert row.name in names_of(series_of((await export.render(""))[0].decode()))
    metrics.QUEUE_OLDEST.clear()
    assert row.name not in names_of(series_of((await export.render(""))[0].decode()))


@pytest.mark.parametrize(
    "media", ["application/openmetrics-text; version=abc", "text/plain;version=x;q=z", "text/plain;;version=1."]
)
async def test_a_client_that_asks_for_an_unreadable_version_gets_plain_text(media: str) -> None:
    body, content_type = await Export(Role.WORKER).render(media)
    assert content_type.startswith("text/plain")
    assert b"callfold_build_info" in body


async def test_a_client_that_asks_for_openmetrics_gets_exemplars_and_another_one_gets_plain_text() -> None:
    export = Export(Role.WORKER)
    metrics.observe(metrics.EVENT_DELAY, 0.2)
    metrics.observe(metrics.EVENT_DELAY, 0.3, "4bf92f3577b34da6a3ce929d0e0e4736")
    body, content_type = await export.render("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5")
    assert content_type.startswith("application/openmetrics-text")
    families = list(text_string_to_metric_families(body.decode()))  # type: ignore[no-untyped-call]
    (family,) = [each for each in families if each.name == "callfold_event_delay_seconds"]
    exemplars = [sample.exemplar for sample in family.samples if sample.exemplar]
    assert [(each.labels, each.value) for each in exemplars] == [({"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736"}, 0.3)]
    body, content_type = await export.render("*/*")
    assert content_type.startswith("text/plain")
    assert b"trace_id" not in body
