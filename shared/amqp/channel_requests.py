"""Guards for requests on a channel: a lost connection raises one error, and nothing waits for a channel that is closed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from aiormq.exceptions import ChannelAccessRefused

from callfold_client.channel_waits import wait_while_open, write_while_open
from shared.amqp.connection_errors import is_cancelled, is_lost
from shared.errors import BrokerAccessError, BrokerUnavailableError

__all__ = ["broker_request", "wait_while_open", "write_while_open"]


@contextmanager
def broker_request(failure: str) -> Iterator[None]:
    """Guard a request to the broker; `failure` begins the text of the error.

    On Python 3.11 the library swallows a cancellation that comes with the answer. A loop of requests under a time limit would
    then never end, so the cancellation is raised here.

    Raises:
        BrokerAccessError: the user is not permitted to do this.
        BrokerUnavailableError: the connection was lost, or RabbitMQ did not answer in time.
    """
    cancellations = _cancellations()
    try:
        yield
    except (Exception, asyncio.CancelledError) as error:
        if is_lost(error) and _cancellations() > cancellations:
            raise asyncio.CancelledError from error
        if not is_lost(error) and (is_cancelled() or not isinstance(error, asyncio.CancelledError)):
            raise
        reason = "RabbitMQ did not answer in time" if isinstance(error, TimeoutError) else "the connection to RabbitMQ was lost"
        raised = BrokerAccessError if isinstance(error, ChannelAccessRefused) else BrokerUnavailableError
        raise raised(f"{failure}: {str(error) or reason}") from error
    if _cancellations() > cancellations:
        raise asyncio.CancelledError


def _cancellations() -> int:
    task = asyncio.current_task()
    return task.cancelling() if task else 0
