"""What switches traces on, and what stops the start."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping

import pytest

from shared.errors import ConfigError
from shared.tracing.spans import is_on
from shared.tracing.switch import is_requested, traced_process

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}


@pytest.mark.parametrize(
    ("environment", "is_wanted"),
    [
        ({}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, False),
        (ENDPOINT, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1/v1/traces"}, True),
        (ENDPOINT | {"OTEL_TRACES_EXPORTER": "none"}, False),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "TRUE"}, False),
        (ENDPOINT | {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, True),
    ],
)
def test_an_endpoint_switches_traces_on(environment: Mapping[str, str], is_wanted: bool) -> None:  # noqa: FBT001
    assert is_requested(environment) == is_wanted


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
    ],
)
def test_what_callfold_cannot_export_is_a_configuration_error(variable: str, value: str) -> None:
    with pytest.raises(ConfigError, match=value):
        is_requested(ENDPOINT | {variable: value})


@pytest.mark.parametrize(
    ("variable", "value"),
    [("OTEL_BSP_MAX_QUEUE_SIZE", "-5"), ("OTEL_SPAN_LINK_COUNT_LIMIT", "many"), ("OTEL_BSP_SCHEDULE_DELAY", "0")],
)
def test_a_variable_that_the_sdk_refuses_is_a_configuration_error(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", ENDPOINT["OTEL_EXPORTER_OTLP_ENDPOINT"])
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match="OpenTelemetry refuses its variables"), traced_process("ingress"):
        pass


def test_a_value_error_of_the_process_is_not_taken_for_one_of_its_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", ENDPOINT["OTEL_EXPORTER_OTLP_ENDPOINT"])
    with pytest.raises(ValueError, match="a bug"), traced_process("ingress"):
        raise ValueError("a bug")


def test_without_the_extra_the_process_does_not_start_and_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", ENDPOINT["OTEL_EXPORTER_OTLP_ENDPOINT"])
    for name in [name for name in sys.modules if name.startswith(("opentelemetry", "shared.tracing.export"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ConfigError, match=r"extra `otel`: pip install 'callfold\[otel\]'"), traced_process("worker"):
        pass


@pytest.mark.parametrize("role", ["console", "history"])
def test_other_processes_record_nothing(role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", ENDPOINT["OTEL_EXPORTER_OTLP_ENDPOINT"])
    with traced_process(role):
        assert not is_on()


def test_the_exporter_is_not_imported_while_traces_are_off() -> None:
    code = (
        "import sys, shared.tracing.spans, shared.tracing.switch, worker.folding.traces;"
        "sys.exit('shared.tracing.export' in sys.modules or 'opentelemetry' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
