"""What the AMQP library raises when a connection is refused or lost."""

from __future__ import annotations

import asyncio

from aiormq.channel import Channel
from aiormq.exceptions import (
    AMQPError,
    AuthenticationError,
    ChannelInvalidStateError,
    InvalidFrameError,
    ProbableAuthenticationError,
)

# Raised when the connection or the broker is gone; TimeoutError is an OSError.
LOST = (AMQPError, OSError, ChannelInvalidStateError)


def is_lost(error: BaseException) -> bool:
    """Return whether the connection was lost.

    A broker that stops while a channel opens raises a bare `Exception`. A channel on a connection that just closed, and with
    uvloop a write to it, raise a bare `RuntimeError` whose text ends in "closed".
    """
    return isinstance(error, LOST) or type(error) is Exception or (type(error) is RuntimeError and str(error).endswith(" closed"))


def refusal(error: BaseException) -> str | None:
    """Return what RabbitMQ refused when the connection was opened, or None for any other error."""
    if isinstance(error, AuthenticationError | ProbableAuthenticationError):
        return "refused the user or password"
    if isinstance(error, InvalidFrameError) and "Connection.Close" in str(error):  # how the library reports a refused open
        return "refused the virtual host: it does not exist, or the user may not use it"
    return None


def is_cancelled() -> bool:
    """Return whether the current task is being cancelled; the library also raises CancelledError by itself."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def loss(channel: Channel) -> str:
    """Return why a channel was closed, in the words of the broker or of the system; '' if it is open."""
    if not channel.is_closed:
        return ""
    error = None if channel.closing.cancelled() else channel.closing.exception()
    return str(error) or type(error).__name__ if error else "no reason is known"
