"""Sentences for people about what was configured: from what pydantic found, and with the name that was probably closest_name."""

from __future__ import annotations

from collections.abc import Callable, Collection
from difflib import get_close_matches
from typing import TYPE_CHECKING

from pydantic import ValidationError

if TYPE_CHECKING:  # exists for type checkers only
    from pydantic_core import ErrorDetails

_ALIKE = 0.75

_MUST: dict[str, str] = {
    "string_type": "must be text in quotes",
    "frozen_set_type": "must be a list in square brackets",
    "tuple_type": "must be a list in square brackets",
    "too_short": "must not be empty",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "literal_error": "must be {expected}",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "ip_any_network": 'must be networks like "10.0.0.0/8"',
    "path_type": "must be a path",
}
"""What a value must be, by the type of pydantic's error."""


def closest_name(name: str, known: Collection[str]) -> str | None:
    """Find the known name that a misspelt one was probably closest_name to be."""
    written = {each.lower(): each for each in known}
    return next((written[each] for each in get_close_matches(name.lower(), written, n=1, cutoff=_ALIKE)), None)


def validation_message(error: ValidationError, known: Collection[str], *, name: Callable[[str], str] = str) -> str:
    """Say what is wrong first, without the value: the key and what it must be, or an unknown key and which was probably meant.

    `name` writes a field as people know it.
    """
    details = error.errors(include_input=False, include_url=False)[0]
    key = name(str(details["loc"][0])) if details["loc"] else ""
    if details["type"] == "extra_forbidden":
        guess = closest_name(key, known)
        return f"unknown key `{key}`; " + (f"did you mean `{guess}`?" if guess else f"known are {', '.join(known)}.")
    return f"{key}: {_problem(details)}." if key else f"{_problem(details)}."


def _problem(details: ErrorDetails) -> str:
    context = details.get("ctx", {})
    cause = context.get("error")
    if isinstance(cause, Exception):  # ours: pydantic puts "Value error, " before it
        return str(cause)
    must = _MUST.get(details["type"])
    return must.format_map(context) if must else details["msg"].replace("Input should be", "must be", 1)
