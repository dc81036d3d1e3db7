"""The export of spans: what the receiver does delays nothing, and is logged once."""

from __future__ import annotations

import logging
import random
import socket
import time
from collections.abc import Iterator

import pytest
from opentelemetry.exporter.otlp.common import http
from structlog.testing import capture_logs

from shared.outage import Outage
from shared.tracing import export
from shared.tracing.contexts import root_of
from shared.tracing.conventions import callback_request
from shared.tracing.spans import Position
from tests.helpers.pace import LIMIT_S

# The thread of an export that hangs outlives its test. Its pauses must not draw from what Hypothesis has other tests draw from.
vars(http)["random"] = random.Random()  # noqa: S311 - no secret

CALLBACK = callback_request("GET", "acme", "513", "http")
SPANS = 500


@pytest.fixture
def silent() -> Iterator[str]:
    """A receiver that takes connections and requests, and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def away() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    return f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("receiver", ["silent", "away"])
def test_a_receiver_that_does_not_answer_loses_spans_and_nothing_waits_for_it(
    receiver: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", request.getfixturevalue(receiver))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", str(10 * LIMIT_S))
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "16")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8")
    monkeypatch.setattr(export, "_FLUSH_S", 0.1)
    monkeypatch.setattr(export, "_EXPORTS", Outage(export.log, "traces_not_exported", "traces_exported"))
    began = time.monotonic()
    with capture_logs() as lines, export.exporting("ingress") as recorder:
        for _ in range(SPANS):
            recorder.start(CALLBACK, Position(root_of("acme/513"))).end()
    events = [line["event"] for line in lines]
    assert time.monotonic() - began < LIMIT_S
    assert {"traces_started", "traces_not_exported"} == set(events)
    # One line for a reason, such as a full queue, and not one for each span.
    assert len(events) <= 6
    assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]


def test_a_line_about_the_receiver_quotes_no_url_and_no_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "_EXPORTS", Outage(export.log, "traces_not_exported", "traces_exported"))
    with capture_logs() as lines:
        logger = logging.getLogger("opentelemetry.test")
        logger.addHandler(export._OneLine("worker"))
        logger.propagate = False
        try:
            error = ConnectionError("http://user:hunter2@collector")
            logger.warning("Transient error %s encountered while exporting, retrying in %.2fs.", error, 0.5)
            logger.warning("Transient error %s encountered while exporting, retrying in %.2fs.", error, 1.5)
        finally:
            logger.handlers.clear()
            logger.propagate = True
    (line,) = lines
    assert (line["event"], line["exception"], line["process"]) == ("traces_not_exported", "ConnectionError", "worker")
    assert line["detail"] == "the receiver cannot be reached"
    assert "hunter2" not in str(line)
