"""The file descriptors of a process: the limit is raised at start, and connections leave enough of them for other work."""

from __future__ import annotations

import resource
from contextlib import suppress

from shared.log import get_logger

log = get_logger(__name__)

# Kept for RabbitMQ, Redis, the spool, recordings and the private port: a quarter of the limit, within these bounds.
_MIN_RESERVE = 64
_MAX_RESERVE = 512
_MIN_CONNECTIONS = 16
# macOS reports no hard limit and still refuses more than this.
_WITHOUT_HARD_LIMIT = 10_240
_BACKLOG = 1024
_MIN_BACKLOG = 16


def raise_descriptor_limit() -> int:
    """Raise the soft limit of descriptors to the hard one, and return the limit that holds."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = _WITHOUT_HARD_LIMIT if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < target:
        with suppress(OSError, ValueError):  # the lower limit works too; the line below shows it
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
    limit = descriptor_limit()
    log.info("descriptor_limit_set", limit=limit, was=soft)
    return limit


def descriptor_limit() -> int:
    """Return how many descriptors this process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _WITHOUT_HARD_LIMIT if soft == resource.RLIM_INFINITY else soft


def connection_limit(maximum: int, descriptors: int) -> int:
    """Return how many connections a server may have: at most `maximum`, and so few that descriptors are left."""
    reserve = max(_MIN_RESERVE, min(_MAX_RESERVE, descriptors // 4))
    return max(_MIN_CONNECTIONS, min(maximum, descriptors - reserve))


def backlog(descriptors: int) -> int:
    """Return the backlog of a port. The kernel may hand all of it over at once, before the limit of connections acts."""
    return max(_MIN_BACKLOG, min(_BACKLOG, descriptors // 8))
