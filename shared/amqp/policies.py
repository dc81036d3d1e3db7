"""Policies of RabbitMQ as they apply to Callfold's queues. Nothing in AMQP shows them, so the management API is read.

A queue takes the matching policy with the highest priority, and one operator policy. Streams take sizes and ages from the policy
before their arguments. Quorum queues take the smaller one of two limits, and `overflow` from the policy. So a policy can expire
messages or queues, shorten journals, and make a full queue drop its oldest messages. It can also make the queue of an endpoint
refuse messages, and then no event can be published to `calls`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from shared.amqp.definitions import policy_name
from shared.amqp.management import read_management
from shared.amqp.topology import CALLS, FORWARD_DEAD, Queue, is_endpoint_queue

_OPERATOR = "operator-policies"
_KINDS = ("policies", _OPERATOR)
_NOT_OURS = frozenset({"exchanges", "classic_queues"})
# By the beginning of the name: `.retry.` queues expire messages on purpose, and a smaller limit of theirs rejects.
_HARMFUL = frozenset({"expires", "message-ttl", "max-age"})
_HARMFUL_TO_JOURNALS = frozenset({"max-length-bytes"})
# Dead letters are taken and given back by operators, and events of an endpoint whenever its forwarder pauses or is replaced.
_HARMFUL_IF_REDELIVERED = frozenset({"delivery-limit"})
_OVERFLOW = "overflow"
_DROP_HEAD = "drop-head"
_LIMITS = frozenset({"max-age", "max-length-bytes", "stream-max-segment-size-bytes"})


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy as the management API describes it."""

    name: str
    pattern: str
    definition: Mapping[str, object] = field(default_factory=dict)
    priority: int = 0
    is_operator: bool = False

    def matches(self, queue: str) -> bool:
        try:
            return re.search(self.pattern, queue) is not None
        except re.error:  # RabbitMQ's expressions are those of Perl; one that cannot be read may match
            return True

    def harms(self, queue: str) -> list[str]:
        """Return the keys of this policy that can lose messages of a queue, if it matches the queue."""
        if not self.matches(queue):
            return []
        is_journal = queue.endswith(".journal")
        harmful = _HARMFUL | (_HARMFUL_TO_JOURNALS if is_journal else frozenset())
        if queue.endswith(".dead") or is_endpoint_queue(queue):
            harmful |= _HARMFUL_IF_REDELIVERED
        if self.name == f"callfold-{queue}" and not self.is_operator:
            harmful -= _LIMITS  # the limits of this queue, as the operator wants them
        overflow = {_OVERFLOW} if not is_journal and self._has_other_overflow(queue) else set()
        return sorted(self.definition.keys() & harmful | overflow)

    def _has_other_overflow(self, queue: str) -> bool:
        """Return whether a full queue would drop messages that it must refuse, or refuse those that it must drop."""
        overflow = self.definition.get(_OVERFLOW)
        if is_endpoint_queue(queue) or queue == FORWARD_DEAD:
            return overflow not in {None, _DROP_HEAD}
        return overflow == _DROP_HEAD


def in_effect(policies: Iterable[Policy], queue: str) -> list[Policy]:
    """Return the policies that apply to a queue. Of several with the same priority, RabbitMQ takes any."""
    effective: list[Policy] = []
    for is_operator in (False, True):
        matching = [policy for policy in policies if policy.is_operator == is_operator and policy.matches(queue)]
        highest = max((policy.priority for policy in matching), default=0)
        effective += [policy for policy in matching if policy.priority == highest]
    return effective


def harmful_policies(policies: Sequence[Policy], queues: Sequence[str]) -> list[str]:
    """Return a sentence for each policy that can lose messages."""
    effective = {queue: in_effect(policies, queue) for queue in queues}
    sentences = []
    for policy in policies:
        harmed = {queue: keys for queue in queues if policy in effective[queue] and (keys := policy.harms(queue))}
        if harmed:
            named = ", ".join(sorted(set().union(*harmed.values())))
            sentences.append(f"The policy {policy.name} ({named}) can lose messages of {', '.join(harmed)}")
        if refusing := [queue for queue, keys in harmed.items() if _OVERFLOW in keys and is_endpoint_queue(queue)]:
            sentences[-1] += f". Once {' or '.join(refusing)} is full, no event can be published to {CALLS}"
    return sentences


def missing_limits(policies: Sequence[Policy], queues: Iterable[Queue]) -> list[str]:
    """Return the names of the queues that lack a limit, because their policy is missing or replaced by another one."""
    return [queue.name for queue in queues if any(key not in _limits(policies, queue) for key in queue.limits)]


def changed_limits(policies: Sequence[Policy], queues: Iterable[Queue]) -> list[str]:
    """Describe, queue by queue, the limits that are not those that Callfold ships."""
    sentences = []
    for queue in queues:
        limits = _limits(policies, queue)
        changed = [
            f"{key} {limits[key]} instead of {value}" for key, value in queue.limits.items() if limits.get(key, value) != value
        ]
        if changed:
            sentences.append(f"{queue.name}: {', '.join(changed)}")
    return sentences


def _limits(policies: Sequence[Policy], queue: Queue) -> Mapping[str, object]:
    """Return the definition in effect for a queue. Callfold's counts if another policy has the same priority."""
    effective = [policy for policy in in_effect(policies, queue.name) if not policy.is_operator]
    effective.sort(key=lambda policy: policy.name != policy_name(queue))
    return effective[0].definition if effective else {}


async def read_policies(management_url: str, amqp_url: str) -> list[Policy]:
    """Read the policies of the virtual host of an AMQP URL; the user needs the tag `policymaker`.

    Raises:
        BrokerUnavailableError: the API does not answer, or refuses.
    """

    def parse(answers: Sequence[Sequence[Mapping[str, object]]]) -> list[Policy]:
        return [
            _policy(entry, is_operator=kind == _OPERATOR)
            for kind, entries in zip(_KINDS, answers, strict=True)
            for entry in entries
            if entry.get("apply-to") not in _NOT_OURS
        ]

    paths = [f"{kind}/{{vhost}}" for kind in _KINDS]
    return await read_management(management_url, amqp_url, paths, parse, what="the policies")


def _policy(entry: Mapping[str, object], *, is_operator: bool) -> Policy:
    definition, priority = entry["definition"], entry.get("priority")
    return Policy(
        str(entry["name"]),
        str(entry["pattern"]),
        definition if isinstance(definition, dict) else {},
        priority if isinstance(priority, int) else 0,
        is_operator,
    )
