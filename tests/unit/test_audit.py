"""Audit lines without a broker."""

from __future__ import annotations

import structlog

from shared.amqp.connection import BrokerAddress
from shared.amqp.publisher import Publisher
from shared.amqp.topology import topology
from shared.runtime.audit import Action, Audit
from tests.helpers.servers import RETRY_S


async def test_without_a_broker_an_audit_line_is_still_logged_and_nothing_fails() -> None:
    publisher = Publisher(BrokerAddress(("amqp://127.0.0.1:1/",), topology(RETRY_S), "tests"), timeout_s=1)
    with structlog.testing.capture_logs() as lines:
        await Audit(publisher).record(Action.HOLD, "somebody", source="acme", call="513", reason="case")
    assert [line["event"] for line in lines] == ["action_audited", "audit_not_in_history"]
