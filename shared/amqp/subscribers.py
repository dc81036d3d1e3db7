"""Queues of subscribers. AMQP does not list them, so the management API is read."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from shared.amqp.management import read_management
from shared.amqp.topology import CALLS, FORWARD_PREFIX, forward_retry_queue, is_endpoint_queue


@dataclass(frozen=True, slots=True)
class Subscription:
    """A binding to the exchange `calls` of a queue or an exchange that is not Callfold's."""

    name: str
    pattern: str

    def __str__(self) -> str:
        return f"{self.name} ({self.pattern})"


async def read_subscriptions(management_url: str, amqp_url: str, ours: Collection[str]) -> list[Subscription]:
    """Read what is bound to the exchange `calls`, without the queues in `ours`.

    Raises:
        BrokerUnavailableError: the API does not answer, or refuses.
    """
    paths = [f"exchanges/{{vhost}}/{CALLS}/bindings/source"]
    return await read_management(
        management_url, amqp_url, paths, lambda answers: subscriptions(answers[0], ours), what="the subscribers"
    )


async def read_endpoint_queues(management_url: str, amqp_url: str, retry_s: Iterable[float]) -> list[str]:
    """Read the names of the queues of endpoints, each followed by those in which its events wait for another attempt.

    Raises:
        BrokerUnavailableError: the API does not answer, or refuses.
    """
    bound = {each.name for each in await read_subscriptions(management_url, amqp_url, ())}
    delays = sorted(set(retry_s))
    return [
        name
        for queue in sorted(filter(is_endpoint_queue, bound))
        for name in (queue, *(forward_retry_queue(queue.removeprefix(FORWARD_PREFIX), delay_s) for delay_s in delays))
    ]


def subscriptions(bindings: Collection[Mapping[str, object]], ours: Collection[str]) -> list[Subscription]:
    """Read the answer of the API."""
    bound = [Subscription(str(binding["destination"]), str(binding["routing_key"])) for binding in bindings]
    return sorted({each for each in bound if each.name not in ours}, key=str)
