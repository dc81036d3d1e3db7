"""The names of the two queues of dead letters. The command line shows them in its help, so this imports little."""

from __future__ import annotations

from enum import StrEnum


class DeadLetterQueue(StrEnum):
    """The two queues of dead letters."""

    CALLBACKS = "callbacks"
    RECORDINGS = "recordings"

    @property
    def queue_name(self) -> str:
        from shared.amqp.topology import CALLBACKS_DEAD, RECORDINGS_DEAD  # noqa: PLC0415 - as above

        return CALLBACKS_DEAD if self is DeadLetterQueue.CALLBACKS else RECORDINGS_DEAD
