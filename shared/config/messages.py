"""Error messages from pydantic's validation errors, with a guess at misspelled names."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import TYPE_CHECKING

from pydantic import ValidationError

if TYPE_CHECKING:  # exists for type checkers only
    from pydantic_core import ErrorDetails

_SIMILARITY = 0.75

_REQUIREMENTS: Mapping[str, str] = {
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
"""What a value must be, by type of pydantic's error."""


def closest_name(name: str, known: Collection[str]) -> str | None:
    """Return the known name most similar to a misspelled one, or None if no name is similar."""
    lowercase = {each.lower(): each for each in known}
    return next((lowercase[each] for each in get_close_matches(name.lower(), lowercase, n=1, cutoff=_SIMILARITY)), None)


def validation_message(error: ValidationError, known: Collection[str], *, label: Callable[[str], str] = str) -> str:
    """Describe the first problem without quoting the value: a key and its requirement, or an unknown key and a guess.

    `label` turns a field name into the name that people know.
    """
    return _message(error.errors(include_input=False, include_url=False)[0], known, label)


def validation_messages(error: ValidationError, known: Collection[str]) -> Mapping[str, str]:
    """Describe the first problem of each key, as `validation_message` does; a problem of no key has the key ''."""
    messages: dict[str, str] = {}
    for details in error.errors(include_input=False, include_url=False):
        messages.setdefault(str(details["loc"][0]) if details["loc"] else "", _message(details, known, str))
    return messages


def _message(details: ErrorDetails, known: Collection[str], label: Callable[[str], str]) -> str:
    key = label(str(details["loc"][0])) if details["loc"] else ""
    if details["type"] == "extra_forbidden":
        guess = closest_name(key, known)
        return f"unknown key `{key}`. " + (f"Did you mean `{guess}`?" if guess else f"Known keys: {', '.join(known)}.")
    return f"{key}: {requirement(details)}." if key else f"{requirement(details)}."


def requirement(details: ErrorDetails, special: Mapping[str, str] = MappingProxyType({})) -> str:
    """Return what a value must be; `special` takes precedence over the common requirements."""
    context = details.get("ctx", {})
    cause = context.get("error")
    if isinstance(cause, Exception):  # raised by Callfold's own validators; pydantic would put "Value error, " in front
        return str(cause)
    template = special.get(details["type"]) or _REQUIREMENTS.get(details["type"])
    return template.format_map(context) if template else details["msg"].replace("Input should be", "must be", 1)
