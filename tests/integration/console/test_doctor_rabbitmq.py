"""`callfold doctor` names the servers of CALLFOLD_AMQP_URL that do not answer."""

from __future__ import annotations

import socket

import pytest

from console.commands.doctor import CHECKS, run_check
from shared.config.settings import Settings
from tests.helpers.servers import Servers


async def test_a_server_that_does_not_answer_is_a_warning_with_its_address(
    rabbitmq_only: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = rabbitmq_only.stack.amqp_url
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # keeps the port, but nothing listens there
        port = closed.getsockname()[1]
        for urls in (f"{url},amqp://guest:hunter2@127.0.0.1:{port}/", f"amqp://guest:hunter2@127.0.0.1:{port}/,{url}"):
            monkeypatch.setenv("CALLFOLD_AMQP_URL", urls)
            finding = await run_check("rabbitmq", CHECKS["rabbitmq"], Settings())
            assert (finding.ok, finding.warning) == (True, True)
            assert f"CALLFOLD_AMQP_URL names servers that cannot be used: 127.0.0.1:{port}: " in finding.detail
            assert "hunter2" not in finding.detail
    monkeypatch.setenv("CALLFOLD_AMQP_URL", url)
    finding = await run_check("rabbitmq", CHECKS["rabbitmq"], Settings())
    assert (finding.ok, finding.warning) == (True, False)
