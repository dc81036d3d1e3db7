"""Validators of the published schemas: as readers have them, or closed, which allow nothing that no schema names."""

from __future__ import annotations

from datetime import datetime
from functools import cache

from jsonschema import Draft202012Validator, FormatChecker

from shared.schemas.catalog import schemas
from shared.schemas.generation import closed

_FORMATS = FormatChecker()


@_FORMATS.checks("date-time", raises=ValueError)
def _is_time(value: object) -> bool:
    return not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is not None


@cache
def validator(path: str, *, is_closed: bool = True) -> Draft202012Validator:
    schema = schemas()[path]
    return Draft202012Validator(closed(schema) if is_closed else schema, format_checker=_FORMATS)
