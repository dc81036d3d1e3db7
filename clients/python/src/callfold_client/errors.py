"""The errors of the client. Their texts are sentences for people, without credentials."""

from __future__ import annotations


class CallfoldClientError(Exception):
    """Base of all errors that the client raises on purpose."""


class NotAnEventError(CallfoldClientError, ValueError):
    """A message is no event of Callfold, or an event of a form that this client cannot read."""


class WhereError(CallfoldClientError, ValueError):
    """A `where` filter cannot be read. `position` is the index of the character at which reading failed."""

    def __init__(self, text: str, position: int, problem: str) -> None:
        self.text = text
        self.position = position
        self.problem = problem
        super().__init__(f"Cannot read the filter {text!r} at character {position + 1}: {problem}.")


class SubscriptionError(CallfoldClientError):
    """A subscription that cannot work as it was requested. Another attempt would fail too."""


class RefusedError(SubscriptionError):
    """RabbitMQ refused the user, its password, its virtual host, or a right."""


class QueueConflictError(SubscriptionError):
    """The queue exists with other arguments."""


class TransportLostError(CallfoldClientError):
    """The connection to RabbitMQ was lost, or RabbitMQ did not answer in time. Another attempt may succeed."""


class StreamError(CallfoldClientError):
    """A journal cannot be read to its end."""


class RecordingError(CallfoldClientError):
    """A recording could not be fetched."""
