"""The names of the queues of dead letters. The command line shows them in its help, so this imports little."""

from __future__ import annotations

from enum import StrEnum

_SUFFIX = ".dead"


class DeadLetterQueue(StrEnum):
    """The queues of dead letters. The name of the queue in RabbitMQ, such as `forward.dead`, is understood too."""

    CALLBACKS = "callbacks"
    RECORDINGS = "recordings"
    FORWARD = "forward"

    @property
    def queue_name(self) -> str:
        return f"{self}{_SUFFIX}"

    @classmethod
    def _missing_(cls, value: object) -> DeadLetterQueue | None:
        name = value.removesuffix(_SUFFIX) if isinstance(value, str) else value
        return next((queue for queue in cls if queue.value == name), None)
