"""`callfold calls`: list calls from Redis and the history, newest start first."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from enum import StrEnum

from pydantic import ValidationError

from console.call_query import CallQuery, CallRow
from console.commands.common import select_sources, warn_if_unknown
from console.counts import counted
from console.lookup.csv_export import write_csv
from console.lookup.lookup import open_lookup
from console.safe_text import plain_line
from console.validation import first_mistake
from shared.config.settings import Settings
from shared.errors import CallfoldError, ConfigError

_PAGE = 500


class Form(StrEnum):
    """Output format."""

    TEXT = "text"
    JSON = "json"
    CSV = "csv"


async def list_calls(settings: Settings, filters: Mapping[str, object], at_most: int, form: Form) -> int:
    """Print the calls that match, up to `at_most`.

    Raises:
        ConfigError: a filter is invalid, or its source is unknown.
        CallfoldError: the history is unavailable, or Redis is being rebuilt, so the list can be incomplete.
    """
    try:
        given = {name: value for name, value in filters.items() if value is not None}
        query = CallQuery.model_validate(given | {"limit": min(at_most, _PAGE)})
    except ValidationError as error:
        raise ConfigError(first_mistake(error, CallQuery)[1]) from None
    rows: list[CallRow] = []
    problem = None
    async with open_lookup(settings) as lookup:
        while len(rows) < at_most:
            page = await lookup.find(query)
            rows += page.rows
            problem = problem or page.problem
            if page.next is None:
                break
            query = query.model_copy(update={"cursor": query.cursor_at(page.next)})
    if not rows and settings.history_url is None:
        select_sources(settings, query.source)
    warn_if_unknown(settings, query.source)
    _print(rows[:at_most], form)
    if problem:
        raise CallfoldError(problem)
    return 0


def _print(rows: list[CallRow], form: Form) -> None:
    match form:
        case Form.JSON:
            sys.stdout.writelines(row.model_dump_json() + "\n" for row in rows)
        case Form.CSV:
            sys.stdout.write(write_csv(rows))
        case Form.TEXT:
            sys.stdout.writelines(_line(row) + "\n" for row in rows)
            sys.stderr.write(f"{counted(len(rows), 'call')}\n")


def _line(row: CallRow) -> str:
    talked = "" if row.talk_seconds is None else f"{row.talk_seconds:.0f} s"
    name = plain_line(f"{row.source}/{row.call}")
    state = str(row.outcome or row.status)
    kind, agent, number = row.call_type or "-", plain_line(row.agent or "-"), plain_line(row.number or "-")
    return f"{row.started_at[:19]}Z  {name:<28}  {kind:<10}  {state:<14}  {talked:>7}  {agent:<10}  {number}"
