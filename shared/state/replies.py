"""Replies of Redis: every failure becomes one error, and callers that must not give up retry until Redis answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from redis.exceptions import AuthenticationError, RedisError

from shared.errors import StoreReadOnlyError, StoreUnavailableError
from shared.log import get_logger
from shared.outage import Outage
from shared.state.connections import RefusedError
from shared.state.locating import UnclearMasterError

log = get_logger(__name__)

REDIS_OUTAGE = Outage(log, "redis_unavailable", "redis_available")
"""The outage as this process experiences it."""

_RETRY_S = (0.05, 0.2, 0.5, 1)

_T = TypeVar("_T")


async def redis_reply(command: Awaitable[_T]) -> _T:
    """Await a command.

    Raises:
        StoreReadOnlyError: Redis refuses writes for now.
        StoreUnavailableError: Redis did not answer, could not run the command, or the connection was lost.
    """
    try:
        return await command
    except RefusedError as error:
        raise (StoreReadOnlyError if error.is_readable else StoreUnavailableError)(str(error)) from error
    except AuthenticationError as error:
        raise StoreUnavailableError("Redis refused the user or password") from error
    except UnclearMasterError as error:
        raise StoreUnavailableError(f"Redis has no clear master: {error}") from error
    except (RedisError, OSError) as error:
        raise StoreUnavailableError(f"Redis failed ({type(error).__name__}): {error}") from error


async def until_redis_answers(step: Callable[[], Awaitable[_T]]) -> _T:
    """Repeat a step of the store until Redis can do it, so that an outage delays work but loses none."""
    return await REDIS_OUTAGE.outlast(step, StoreUnavailableError, pauses_s=_RETRY_S)


def text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def text_pairs(flat: Sequence[bytes]) -> dict[str, str]:
    """Read `name, value, name, value, ...`, as scripts return the fields of a hash."""
    items = [item.decode() for item in flat]
    return dict(zip(items[::2], items[1::2], strict=True))
