"""Error sentences for invalid requests over HTTP, on the command line and in the search form.

A sentence never quotes a value, which can be a phone number or a key given to the wrong parameter.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import TYPE_CHECKING

from pydantic import BaseModel, ValidationError

from shared.config.messages import closest_name, requirement

if TYPE_CHECKING:  # exists for type checkers only
    from pydantic_core import ErrorDetails

_WHOLE = "request"
_UNKNOWN = "extra_forbidden"
_CHOICES = frozenset({"enum", "literal_error"})
_OF_ONE = _CHOICES | {"string_type", "int_type", "bool_type"}
_QUOTED = re.compile(r"'([^']*)'")
_MUST: dict[str, str] = {
    "missing": "is missing",
    "string_type": "must be text",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must match {pattern}",
    "list_type": "must be a list",
    "dict_type": "must be an object of names and values",
    "too_long": "must have at most {max_length} entries",
    "model_type": "must be a JSON object",
    "model_attributes_type": "must be a JSON object",
    "json_invalid": "is not valid JSON",
}
"""What a value of a request must be, by type of pydantic's error, besides the common requirements."""


def first_mistake(error: ValidationError, model: type[BaseModel]) -> tuple[str, str]:
    """Return an invalid parameter and a sentence that says what it must be.

    An unknown parameter comes first, because it can be a misspelt one.
    """
    errors = error.errors(include_url=False)
    details = next((each for each in errors if each["type"] == _UNKNOWN), errors[0])
    name = ".".join(str(part) for part in details["loc"]) or _WHOLE
    subject = "The request" if name == _WHOLE else name
    return name, f"{subject} {_ended(mistake(details, model))}"


def mistake(details: ErrorDetails, model: type[BaseModel]) -> str:
    """Return the predicate that says what is wrong with a parameter, e.g. `must not be empty`."""
    context = details.get("ctx", {})
    if details["type"] == _UNKNOWN:
        return _unknown(str(details["loc"][-1]), model.model_fields)
    if isinstance(details["input"], list) and details["type"] in _OF_ONE:  # a query parameter given twice
        return "must be a single value"
    if details["type"] in _CHOICES:
        return _choice(details["input"], _QUOTED.findall(context["expected"]))
    if context.get("min_length") == 1:
        return "must not be empty"
    return requirement(details, _MUST)


def _unknown(name: str, known: Collection[str]) -> str:
    guess = closest_name(name, known)
    return "is unknown. " + (f"Did you mean {guess}?" if guess else f"Expected one of {', '.join(known)}")


def _choice(given: object, known: Collection[str]) -> str:
    guess = closest_name(given, known) if isinstance(given, str) else None
    return f"must be one of {', '.join(known)}" + (f". Did you mean {guess}?" if guess else "")


def _ended(text: str) -> str:
    return text if text.endswith("?") else f"{text}."
