"""The errors that Callfold raises on purpose, by what the caller does: stop, reject or wait."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from callfold_client.errors import TransportLostError
from shared.partial_values import mask, shorten_name

_ErrorT = TypeVar("_ErrorT", bound=BaseException)


class CallfoldError(Exception):
    """Base of all errors raised on purpose. Its text is a sentence for users."""


class ConfigError(CallfoldError):
    """A configuration that cannot work. The process does not start (exit code 2)."""


class InvalidCallbackError(CallfoldError):
    """A callback that can never be folded. It is rejected with status 400 and dead-lettered."""

    def __init__(self, parameter: str, value: str, problem: str, *, is_name: bool = False) -> None:
        """Name the query parameter, its value and the problem, which continues the sentence "parameter <name>".

        `is_name`: the parameter takes one of a few names or codes, so the start of its value can be shown.
        """
        self.parameter = parameter
        self.shown_value = shorten_name(value) if is_name else mask(value)
        self.problem = problem
        super().__init__(f"parameter {parameter} {problem}")


class UnavailableError(CallfoldError):
    """A server is not available; the same work can be retried."""


class BusyError(CallfoldError):
    """Another process has the recording, or may have had it. The work is done later."""


class NotBegunError(BusyError):
    """Nothing was done: another process has the recording, a limit of downloads is reached, or the PBX asked to wait.

    `wait_s` is how long the PBX asked to wait. It is 0 if the PBX did not. `may_have_kept` says that another link of the
    recording was requested before, and that its refused file may be kept.
    """

    def __init__(self, detail: str, *, wait_s: float = 0.0) -> None:
        self.wait_s = wait_s
        self.may_have_kept = False
        super().__init__(detail)


class BrokerUnavailableError(UnavailableError, TransportLostError):
    """RabbitMQ did not confirm: not connected, refused, returned, or too slow. The message may have arrived nevertheless."""


class BrokerRejectedError(BrokerUnavailableError):
    """RabbitMQ answered that a queue did not take the message; other queues of its exchange may have taken it."""


class BrokerAccessError(BrokerUnavailableError):
    """RabbitMQ does not permit its user what was requested. Another user may be permitted."""


class StoreUnavailableError(UnavailableError):
    """Redis did not answer, or cannot write now. The command may have run nevertheless."""


class StateUnverifiedError(StoreUnavailableError):
    """The connection to Redis is new, and its state was not compared with what is known yet."""


class StoreReadOnlyError(StoreUnavailableError):
    """Redis refuses writes for now and can be read: too little memory, too few replicas, or a disk that cannot be written."""


class StateMovedError(UnavailableError):
    """The state of a partition of Redis has changed: it is lost, is being rebuilt, or is rebuilt. The whole work begins again."""


class StateLostError(StateMovedError):
    """Redis has lost state: it was emptied, went back, or has evicted keys.

    Attributes:
        causes: what happened to each partition that is concerned.
    """

    def __init__(self, causes: Mapping[int, str]) -> None:
        self.causes = causes
        partitions = ", ".join(f"{number} ({cause})" for number, cause in sorted(causes.items()))
        super().__init__(f"Redis has lost state of partitions: {partitions}. A worker rebuilds it from the journals.")


class StateWaitsError(StateMovedError):
    """An event needs a partition that is not ready.

    Attributes:
        call, partition: the event is one of this call, and waits for this partition.
    """

    def __init__(self, call: object, partition: int) -> None:
        self.call = call
        self.partition = partition
        super().__init__(f"Events of {call} wait until partition {partition} of Redis is rebuilt.")


class HistoryUnavailableError(UnavailableError):
    """The history's database did not answer, or cannot write now. The transaction may have been committed nevertheless."""


class SpoolUnavailableError(UnavailableError):
    """The local spool is full, or cannot be written."""


class SpoolLeftError(CallfoldError):
    """The process has stopped, and callbacks are left in its spool (exit code 4). They are durable there."""


def leaf_errors(group: BaseExceptionGroup[_ErrorT]) -> list[_ErrorT]:
    """Return the errors of a group and of the groups in it."""
    errors: list[_ErrorT] = []
    for error in group.exceptions:
        errors += leaf_errors(error) if isinstance(error, BaseExceptionGroup) else [error]
    return errors
