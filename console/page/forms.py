"""The search form: from the fields as a browser sends them, empty ones included, to a query or what is wrong with which field."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

from console.call_query import CallQuery
from console.validation import mistake


def read_query(asked: Mapping[str, str]) -> CallQuery | dict[str, str]:
    """Read a search; where it cannot be understood, tell the problem of each wrong parameter."""
    given = {name: value.strip() for name, value in asked.items() if value.strip()}
    try:
        return CallQuery.model_validate(given)
    except ValidationError as error:
        return {_parameter(problem["loc"]): mistake(problem, CallQuery) for problem in error.errors(include_url=False)}


def _parameter(loc: tuple[int | str, ...]) -> str:
    return str(loc[0]) if loc else "since"  # the one rule that is about two of them
