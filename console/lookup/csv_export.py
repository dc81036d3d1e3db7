"""Calls as CSV that is safe to open in a spreadsheet."""

from __future__ import annotations

import asyncio
import csv
import io
import re
from collections.abc import Iterator, Sequence

from console.call_query import CallRow

CSV = "text/csv"
_COLUMNS = tuple(name for name, field in CallRow.model_fields.items() if not field.exclude)
# The start of a formula, also after blanks and quotes, and with full-width signs. A signed number is no formula.
_SIGNS = r"[=+\-@\uff1d\uff0b\uff0d\uff20]"
_FORMULA = re.compile(rf"[\t\r\n]|[\s'\"]*{_SIGNS}")
# A spreadsheet that splits at semicolons or tabs begins a cell there and ignores the quotes around the value.
_INNER_FORMULA = re.compile(rf"([;\t\r\n])(?=(?:[^\S\t\r\n]|['\"])*{_SIGNS})")
_SIGNED_NUMBER = re.compile(r"[+-][0-9]+(\.[0-9]+)?")

_ROWS_A_STEP = 50


def write_csv(rows: Sequence[CallRow]) -> str:
    """Write calls as CSV (RFC 4180) in which no cell is a formula."""
    return "".join(_parts(rows))


async def write_csv_in_steps(rows: Sequence[CallRow]) -> str:
    """Write calls as CSV in short steps, between which others have their turn."""
    parts: list[str] = []
    for part in _parts(rows):
        parts.append(part)
        await asyncio.sleep(0)
    return "".join(parts)


def _parts(rows: Sequence[CallRow]) -> Iterator[str]:
    for first in range(0, max(1, len(rows)), _ROWS_A_STEP):
        text = io.StringIO()
        writer = csv.writer(text, quoting=csv.QUOTE_ALL)
        if first == 0:
            writer.writerow(_COLUMNS)
        for row in rows[first : first + _ROWS_A_STEP]:
            values = row.model_dump(mode="json")
            writer.writerow([_cell(values[name]) for name in _COLUMNS])
        yield text.getvalue()


def _cell(value: object) -> str:
    if value is None or isinstance(value, bool):
        return "" if value is None else str(value).lower()
    text = str(value)
    escaped = _INNER_FORMULA.sub(r"\1'", text)
    return f"'{escaped}" if _FORMULA.match(text) and not _SIGNED_NUMBER.fullmatch(text) else escaped
