"""JSON with the standard library, as strict as orjson: only UTF-8, no half of a surrogate pair, and only finite numbers."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

_MAX_INTEGER_DIGITS = 20


def loads(body: bytes) -> Any:  # noqa: ANN401 - free-form JSON
    """Read JSON.

    Raises:
        ValueError: it is no JSON.
    """
    text = body.decode()
    value = json.loads(text, parse_constant=_refuse, parse_float=_finite, parse_int=_integer)
    if "\\u" in text:
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MAX_INTEGER_DIGITS else _finite(digits)
