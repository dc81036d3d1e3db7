"""Definitions for RabbitMQ: the policies with the sizes and ages of queues, in the format that RabbitMQ imports."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from shared.amqp.topology import Queue, Topology

# A queue takes the one matching policy with the highest priority. A general policy of another program must not replace these.
PRIORITY = 100

Definition = Mapping[str, object]


def policies(topology: Topology, *, vhost: str) -> Sequence[Definition]:
    """Return a policy for each queue that has limits."""
    return [
        {
            "vhost": vhost,
            "name": policy_name(queue),
            "pattern": f"^{re.escape(queue.name)}$",
            "apply-to": "queues",
            "definition": dict(queue.limits),
            "priority": PRIORITY,
        }
        for queue in topology.queues
        if queue.limits
    ]


def policy_name(queue: Queue) -> str:
    """Return the name of the policy with the limits of a queue."""
    return f"callfold-{queue.name}"
