"""What is wrong with a request, in sentences for the one who made it: over HTTP, on the command line, in the search form.

A sentence never quotes a value: what is wrong can be a number or a key that was put in the wrong place.
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
    """Name a wrong parameter, with a sentence that says what it must be; an unknown one first: it may be misspelt."""
    found = error.errors(include_url=False)
    details = next((each for each in found if each["type"] == _UNKNOWN), found[0])
    name = ".".join(str(part) for part in details["loc"]) or _WHOLE
    return name, f"{name}: {_ended(mistake(details, model))}"


def mistake(details: ErrorDetails, model: type[BaseModel]) -> str:
    """Say what is wrong with a parameter of a model; goes on from its name."""
    context = details.get("ctx", {})
    if details["type"] == _UNKNOWN:
        return _unknown(str(details["loc"][-1]), model.model_fields)
    if isinstance(details["input"], list) and details["type"] in _OF_ONE:  # a parameter of a query that comes twice
        return "must be a single value"
    if details["type"] in _CHOICES:
        return _choice(details["input"], _QUOTED.findall(context["expected"]))
    if context.get("min_length") == 1:
        return "must not be empty"
    return requirement(details, _MUST)


def _unknown(name: str, known: Collection[str]) -> str:
    guess = closest_name(name, known)
    return "is not known here; " + (f"did you mean {guess}?" if guess else f"known are {', '.join(known)}")


def _choice(given: object, known: Collection[str]) -> str:
    guess = closest_name(given, known) if isinstance(given, str) else None
    return f"must be one of {', '.join(known)}" + (f"; did you mean {guess}?" if guess else "")


def _ended(text: str) -> str:
    return text if text.endswith("?") else f"{text}."
