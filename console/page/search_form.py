"""The search form: its fields as a browser sends them become a query or one error per field."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

from console.call_query import CallQuery
from console.validation import mistake


def read_query(form_values: Mapping[str, str]) -> CallQuery | dict[str, str]:
    """Parse a search; empty fields are ignored. Return the error of each invalid parameter if there are any."""
    parameters = {name: value.strip() for name, value in form_values.items() if value.strip()}
    try:
        return CallQuery.model_validate(parameters)
    except ValidationError as error:
        return {_parameter(problem["loc"]): mistake(problem, CallQuery) for problem in error.errors(include_url=False)}


def _parameter(loc: tuple[int | str, ...]) -> str:
    return str(loc[0]) if loc else "since"  # the only rule about two parameters: `since` and `until`
