"""Writes to a connection that has just closed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from redis.exceptions import ConnectionError as RedisConnectionError

_CLOSED = "the handler is closed"


@contextmanager
def closed_is_lost() -> Iterator[None]:
    """Guard writes. If an earlier one found the connection reset, uvloop raises a bare `RuntimeError`, which redis-py passes on.

    Raises:
        RedisConnectionError: the connection was lost.
    """
    try:
        yield
    except RuntimeError as error:
        if _CLOSED not in str(error):
            raise
        raise RedisConnectionError("the connection was lost before a command was written") from error
