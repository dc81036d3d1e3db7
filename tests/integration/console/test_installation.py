"""What the console measures of the whole installation, from RabbitMQ and Redis."""

from __future__ import annotations

from datetime import timedelta

import pytest
from prometheus_client import REGISTRY

from console.live import installation
from console.live.installation import Installation
from shared.amqp.queue_reader import QueueDepths
from shared.domain.facts import facts_of
from shared.domain.ids import SourceName
from shared.domain.raw_event import CallbackEvent
from shared.domain.times import rfc3339
from shared.runtime.broker import broker_address
from shared.runtime.process import background
from shared.state.store import Store
from tests.helpers.dead_letters import bury
from tests.helpers.folding import ADAPTER
from tests.helpers.servers import VENDOR_LINES, Servers, eventually, taken_from
from tests.helpers.settings import settings_here


def _value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


async def test_open_calls_queues_and_ages_are_measured_and_unknown_ones_have_no_series(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_here(monkeypatch, servers.environment())
    monkeypatch.setattr(installation, "_LOOK_INTERVAL_S", 0)
    store = Store(servers.stack.redis_url)
    now = await store.now()
    hour_ago = rfc3339(now - timedelta(hours=1))
    await bury(servers, "acme", "a=1", "unknown_source", first_seen=hour_ago)
    for source, lines in (("acme", VENDOR_LINES[:1]), ("other", VENDOR_LINES[:3])):
        for line in lines:
            key, facts = facts_of(CallbackEvent(SourceName(source), hour_ago, line), ADAPTER)
            await store.merge({key: [facts]})
    await store.unfinished_recordings.begin("acme/1/recording/a", round(now.timestamp() * 1000) - 90_000, now=now, takes_s=60)
    depths = QueueDepths(broker_address(settings, "test"))
    measured = Installation(settings, store, depths)
    run, *readers = measured.tasks()
    run.close()
    async with background(depths.run(), *readers):

        async def is_measured() -> bool:
            await measured.measure()
            return bool(
                _value("callfold_queue_messages", queue="callbacks.dead")
                and _value("callfold_queue_oldest_seconds", queue="callbacks.dead")
            )

        await eventually(is_measured)
    age_s = _value("callfold_queue_oldest_seconds", queue="callbacks.dead")
    assert age_s is not None
    assert 3600 <= age_s < 3800
    assert _value("callfold_queue_messages", queue="callbacks.dead") == 1
    assert _value("callfold_queue_oldest_seconds", queue="recordings.dead") == 0
    assert (_value("callfold_open_calls", status="talking"), _value("callfold_open_calls", status="ending")) == (1, 1)
    oldest_s = _value("callfold_recordings_oldest_seconds")
    assert oldest_s is not None
    assert 90 <= oldest_s < 300
    assert _value("callfold_recordings_waiting") == 0
    async with servers.queue("callbacks.dead") as queue:
        message = await taken_from(queue)
        assert message is not None, "a look leaves the message where it is"

    await measured.measure()  # RabbitMQ is not connected any more
    assert _value("callfold_queue_messages", queue="callbacks.dead") is None
    assert _value("callfold_recordings_oldest_seconds") is None
    assert _value("callfold_open_call_oldest_seconds") is not None
    await store.unfinished_recordings.finish("acme/1/recording/a")
    assert await store.unfinished_recordings.oldest_ms() is None
    await store.aclose()
