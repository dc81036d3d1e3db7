"""Every error Callfold raises on purpose, split by what the caller does about it: stop, refuse, or wait."""

from __future__ import annotations

_SHOWN_CHARACTERS = 20
_DIGITS_OF_A_CODE = 4


class CallfoldError(Exception):
    """Root of all errors raised on purpose; its text is a sentence for a person."""


class ConfigError(CallfoldError):
    """What was configured cannot work: the process refuses to start (exit code 2)."""


class InvalidCallbackError(CallfoldError):
    """A callback that can never be folded as it stands: it is refused with 400 and kept as a dead letter."""

    def __init__(self, parameter: str, value: str, problem: str, *, is_name: bool = False) -> None:
        """Name the query parameter, what it held, and what is wrong with it: `problem` goes on from the name.

        `is_name`: the value should be one of a few names or codes, so that its beginning can be shown.
        """
        self.parameter = parameter
        self.shown_value = begin(value) if is_name else mask(value)
        self.problem = problem
        super().__init__(f"parameter {parameter} {problem}")


class UnavailableError(CallfoldError):
    """A server is away; the same work can be tried again."""


class BrokerUnavailableError(UnavailableError):
    """RabbitMQ did not confirm: not connected, refused, returned, or too slow. The message may have arrived all the same."""


class StoreUnavailableError(UnavailableError):
    """Redis did not answer or cannot write now. The script may have run all the same."""


class HistoryUnavailableError(UnavailableError):
    """The history's database did not answer or cannot write now. The transaction may have been committed all the same."""


class SpoolUnavailableError(UnavailableError):
    """The local spool is full or cannot be written."""


def mask(value: str) -> str:
    """Shorten a value for people: its first characters, never more than a quarter of it."""
    shown = min(4, len(value) // 4)
    return f"{value[:shown]}***" if value else ""


def begin(value: str) -> str:
    """Show how a value begins that should be a name or a code; one of more digits than a code has is something else: masked."""
    if sum(character.isdigit() for character in value) > _DIGITS_OF_A_CODE:
        return mask(value)
    shown = "".join(character if character.isprintable() else "?" for character in value[:_SHOWN_CHARACTERS])
    return shown if len(value) <= _SHOWN_CHARACTERS else f"{shown}..."
