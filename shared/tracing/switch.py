"""Switches tracing on, by the standard variables of OpenTelemetry. docs/tracing.md lists them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from shared.errors import ConfigError
from shared.tracing.spans import recording_with

_TRACED = frozenset({"ingress", "worker"})
_PROTOCOL = "http/protobuf"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


@contextmanager
def traced_process(role: str) -> Iterator[None]:
    """Record the spans of a process, and export them, if the environment asks for it.

    Raises:
        ConfigError: it asks for what is not installed, or for another exporter than OTLP over HTTP. Or the SDK refuses a value.
    """
    if role not in _TRACED or not is_requested(os.environ):
        yield
        return
    try:
        from shared.tracing.export import exporting  # noqa: PLC0415 - an optional package, which takes 0.1 s to import
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{_ENDPOINTS[1]} is set, but OpenTelemetry is not installed ({error.name}). "
            "Install Callfold with the extra `otel`: pip install 'callfold[otel]'. Or unset the variable."
        ) from error
    with ExitStack() as stack:
        try:
            recorder = stack.enter_context(exporting(role))
        except ValueError as error:
            raise ConfigError(f"OpenTelemetry refuses its variables: {error}") from error
        with recording_with(recorder):
            yield


def is_requested(environment: Mapping[str, str]) -> bool:
    """Return whether the environment asks for traces.

    Raises:
        ConfigError: it asks for an exporter or a protocol that Callfold does not have.
    """
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    is_disabled = environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if is_disabled or exporter == "none" or not any(environment.get(name, "").strip() for name in _ENDPOINTS):
        return False
    if exporter not in {"", "otlp"}:
        raise ConfigError(f'OTEL_TRACES_EXPORTER: unknown exporter "{exporter}". Callfold has otlp and none.')
    protocol = next((value for name in _PROTOCOLS if (value := environment.get(name, "").strip())), _PROTOCOL)
    if protocol != _PROTOCOL:
        raise ConfigError(f'OTEL_EXPORTER_OTLP_PROTOCOL: unknown protocol "{protocol}". Callfold has {_PROTOCOL}.')
    return True
