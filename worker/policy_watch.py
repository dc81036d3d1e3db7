"""Watches the policies of RabbitMQ, if `CALLFOLD_MANAGEMENT_URL` is set."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NoReturn

from shared import metrics
from shared.amqp.policies import Policy, changed_limits, harmful_policies, missing_limits, read_policies
from shared.amqp.subscribers import read_endpoint_queues
from shared.amqp.topology import Queue
from shared.config.settings import Settings
from shared.errors import BrokerUnavailableError
from shared.log import get_logger
from shared.outage import Outage
from shared.runtime.broker import whole_topology

log = get_logger(__name__)
_READS = Outage(log, "policies_unreadable", "policies_readable")

_INTERVAL_S = 60.0


async def watch_policies(settings: Settings) -> NoReturn:
    """Report policies that are missing or can lose messages, until cancelled. Run it as a task."""
    known: set[tuple[str, str]] = set()
    queues = whole_topology(settings).queues
    while settings.management_url is not None:
        try:
            api = settings.management_url.get_secret_value(), settings.amqp_urls[0]
            policies = await read_policies(*api)
            of_endpoints = await read_endpoint_queues(*api, settings.forward_retry_seconds)
        except BrokerUnavailableError as error:
            _READS.failed(str(error))
        else:
            _READS.succeeded()
            known = _report(policies, queues, of_endpoints, known)
        await asyncio.sleep(_INTERVAL_S)
    await asyncio.Event().wait()
    raise AssertionError("an event that is never set was waited for")


def _report(
    policies: Sequence[Policy], queues: Sequence[Queue], of_endpoints: Sequence[str], known: set[tuple[str, str]]
) -> set[tuple[str, str]]:
    """Set the metrics and log what is not known yet; returns what is known now."""
    sentences = {
        "policy_harmful": harmful_policies(policies, [*(queue.name for queue in queues), *of_endpoints]),
        "policy_missing": missing_limits(policies, queues),
        "policy_changed": changed_limits(policies, queues),
    }
    metrics.HARMFUL_POLICIES.set(len(sentences["policy_harmful"]))
    metrics.POLICIES_MISSING.set(len(sentences["policy_missing"]))
    metrics.POLICIES_CHANGED.set(len(sentences["policy_changed"]))
    now = {(event, detail) for event, details in sentences.items() for detail in details}
    for event, detail in sorted(now - known):
        if event == "policy_harmful":
            log.error("policy_harmful", detail=detail)
        elif event == "policy_missing":
            log.error("policy_missing", detail=detail)
        else:
            log.info("policy_changed", detail=detail)
    return now
