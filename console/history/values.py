"""Types of values that the databases accept, and how texts are made to fit them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, Field

Row = dict[str, object]

INDEXED_CHARACTERS = 256
"""PostgreSQL's indexes accept values up to about 2700 bytes. Full values are compared in the record."""

_TIME = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$"


def _existing_time(at: str) -> str:
    datetime.fromisoformat(at)
    return at


At = Annotated[str, Field(pattern=_TIME), AfterValidator(_existing_time)]
Short = Annotated[str, Field(max_length=INDEXED_CHARACTERS)]
Int = Annotated[int, Field(ge=0, lt=1 << 31)]
BigInt = Annotated[int, Field(ge=0, lt=1 << 63)]


def without_nul(row: Mapping[str, object]) -> Row:
    """Replace NUL, which callbacks can carry and PostgreSQL rejects in text. JSON columns keep it, escaped."""
    return {name: value.replace("\0", "\ufffd") if isinstance(value, str) else value for name, value in row.items()}


def truncated(text: str | None) -> str | None:
    """Shorten a value to the maximum length of an indexed one."""
    return text and text[:INDEXED_CHARACTERS]


def one_per_line(values: Iterable[str]) -> str:
    """Write values between line ends, so that LIKE matches each as a whole."""
    return "".join(f"\n{value.casefold()}" for value in values) + "\n"
