"""The official JavaScript library of Standard Webhooks verifies what `callfold forward` sends, also while a secret is rotated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.forwarding import OTHER_SECRET, SECRET, bound, delete_queues, events_of, new_name, publish, table
from tests.helpers.history_process import publishing
from tests.helpers.node import PROGRAMS, node
from tests.helpers.servers import Servers

_WRONG_SECRET = "whsec_d3JvbmcgYnV0IGxvbmcgZW5vdWdoIHRvIGJlIGEgc2VjcmV0Lg=="
_RETRY_S = (0.2, 0.5)


@pytest.mark.parametrize("previous", [[], [SECRET]], ids=["one_secret", "rotation"])
async def test_the_javascript_library_verifies_a_webhook_with_each_secret_in_force(
    rabbitmq_only: Servers, tmp_path: Path, previous: list[str]
) -> None:
    servers, name = rabbitmq_only, new_name()
    secrets = json.dumps([OTHER_SECRET, SECRET, _WRONG_SECRET])
    async with node(PROGRAMS / "receiver.mjs", secrets) as receiver, publishing(servers) as publisher:
        port = (await receiver.until(len))[0]["port"]
        endpoints = table(name, f"http://127.0.0.1:{port}/hook", secret=OTHER_SECRET, previous_secrets=previous)
        (tmp_path / "endpoints.toml").write_text(endpoints, "utf-8")
        retries = ",".join(f"{delay_s:g}" for delay_s in _RETRY_S)
        settings = {"CALLFOLD_ENDPOINTS": str(tmp_path / "endpoints.toml"), "CALLFOLD_FORWARD_RETRY_SECONDS": retries}
        async with servers.fleet(**settings) as fleet:
            fleet.add("forward", "worker.forwarding", {})
            await fleet.start_all()
            await bound(servers, endpoints)
            events = events_of(name, 3)
            ids = await publish(publisher, events)
            _, *received = await receiver.until(lambda lines: {*ids} <= {line.get("id") for line in lines})
        await delete_queues(servers, name, *_RETRY_S)
    assert {line["id"] for line in received} == {*ids}
    for line in received:
        assert (line["type"], line["outcome"]) == ("callfold.call.completed.v1", "answered")
        assert line["verified"] == [OTHER_SECRET, *previous]
        assert line["changed"] == []
