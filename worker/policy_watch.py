"""Watches the policies of RabbitMQ, if `CALLFOLD_MANAGEMENT_URL` is set."""

from __future__ import annotations

import asyncio
from typing import NoReturn

from shared import metrics
from shared.amqp.policies import harmful_policies, read_policies
from shared.amqp.topology import topology
from shared.config.settings import Settings
from shared.errors import BrokerUnavailableError
from shared.log import get_logger
from shared.outage import Outage

log = get_logger(__name__)
_READS = Outage(log, "policies_unreadable", "policies_readable")

_INTERVAL_S = 60.0


async def watch_policies(settings: Settings) -> NoReturn:
    """Report policies that can lose messages until cancelled. Run it as a task."""
    known: list[str] = []
    queues = [queue.name for queue in topology(settings.recording_retry_seconds).queues]
    while settings.management_url is not None:
        try:
            policies = await read_policies(settings.management_url.get_secret_value(), settings.amqp_urls[0])
        except BrokerUnavailableError as error:
            _READS.failed(str(error))
        else:
            _READS.succeeded()
            sentences = harmful_policies(policies, queues)
            metrics.HARMFUL_POLICIES.set(len(sentences))
            for sentence in sentences:
                if sentence not in known:
                    log.error("policy_harmful", detail=sentence)
            known = sentences
        await asyncio.sleep(_INTERVAL_S)
    await asyncio.Event().wait()
    raise AssertionError("an event that is never set was waited for")
