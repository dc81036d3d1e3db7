"""Policies of RabbitMQ that can lose messages of Callfold's queues. Nothing in AMQP shows them, so the management API is read.

Of a limit that both have, RabbitMQ takes the smaller one; every other argument of a queue wins over a policy. So a policy cannot
redirect the dead letters of a work queue or make it drop messages. It can expire messages or queues, and shorten journals.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

import aiohttp
from yarl import URL

from shared.errors import BrokerUnavailableError

_TIMEOUT_S = 5
_KINDS = ("policies", "operator-policies")
_NOT_OURS = frozenset({"exchanges", "classic_queues"})
# By the beginning of the name: `.retry.` queues expire messages on purpose, and a smaller limit of theirs rejects.
_HARMFUL = frozenset({"expires", "message-ttl", "max-age"})
_HARMFUL_TO_JOURNALS = frozenset({"max-length-bytes"})
_HARMFUL_TO_DEAD_LETTERS = frozenset({"delivery-limit"})


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy as the management API describes it."""

    name: str
    pattern: str
    keys: frozenset[str]

    def harms(self, queue: str) -> list[str]:
        """Return the keys of this policy that can lose messages of a queue, if it matches the queue."""
        try:
            if not re.search(self.pattern, queue):
                return []
        except re.error:  # RabbitMQ's expressions are those of Perl; one that cannot be read may match
            pass
        harmful = _HARMFUL
        if queue.endswith(".journal"):
            harmful |= _HARMFUL_TO_JOURNALS
        if queue.endswith(".dead"):
            harmful |= _HARMFUL_TO_DEAD_LETTERS
        return sorted(self.keys & harmful)


def harmful_policies(policies: Iterable[Policy], queues: Sequence[str]) -> list[str]:
    """Return a sentence for each policy that can lose messages."""
    sentences = []
    for policy in policies:
        harmed = {queue: keys for queue in queues if (keys := policy.harms(queue))}
        if harmed:
            named = ", ".join(sorted(set().union(*harmed.values())))
            sentences.append(f"The policy {policy.name} ({named}) can lose messages of {', '.join(harmed)}")
    return sentences


async def read_policies(management_url: str, amqp_url: str) -> list[Policy]:
    """Read the policies of the virtual host of an AMQP URL; the user needs the tag `policymaker`.

    Raises:
        BrokerUnavailableError: the API does not answer, or refuses.
    """
    url, vhost = URL(management_url), quote(URL(amqp_url).path.lstrip("/") or "/", safe="")
    headers = {"Authorization": aiohttp.encode_basic_auth(url.user or "guest", url.password or "guest")}
    base = url.with_user(None)
    policies: list[Policy] = []
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(_TIMEOUT_S), headers=headers) as session:
            for kind in _KINDS:
                address = URL(f"{str(base).rstrip('/')}/api/{kind}/{vhost}", encoded=True)
                async with session.get(address, allow_redirects=False, raise_for_status=True) as response:
                    policies += [_policy(entry) for entry in await response.json() if entry.get("apply-to") not in _NOT_OURS]
    except (aiohttp.ClientError, TimeoutError, ValueError, AttributeError, KeyError, TypeError) as error:
        detail = f"status {error.status}" if isinstance(error, aiohttp.ClientResponseError) else f"{type(error).__name__} {error}"
        raise BrokerUnavailableError(f"Cannot read the policies at {base.host}:{base.port}: {detail}") from error
    return policies


def _policy(entry: Mapping[str, object]) -> Policy:
    definition = entry["definition"]
    return Policy(str(entry["name"]), str(entry["pattern"]), frozenset(definition if isinstance(definition, dict) else ()))
