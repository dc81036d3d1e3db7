"""Looking up calls over HTTP: `GET /calls` as JSON or CSV, and everything about one call."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence

from console.call_query import CallRow

CSV = "text/csv"
_COLUMNS = tuple(name for name, field in CallRow.model_fields.items() if not field.exclude)
# What a spreadsheet would take for a formula, also behind blanks and quotes, in full width too; a number with its sign is none.
_SIGNS = r"[=+\-@\uff1d\uff0b\uff0d\uff20]"
_FORMULA = re.compile(rf"[\t\r\n]|[\s'\"]*{_SIGNS}")
# Where lists are separated by semicolons or tabs, a cell begins there, and the quotes around the value do not count.
_INNER_FORMULA = re.compile(rf"([;\t\r\n])(?=(?:[^\S\t\r\n]|['\"])*{_SIGNS})")
_SIGNED_NUMBER = re.compile(r"[+-][0-9]+(\.[0-9]+)?")


def write_csv(rows: Sequence[CallRow]) -> str:
    """Write calls as CSV (RFC 4180), safe to open in a spreadsheet."""
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerow(_COLUMNS)
    for row in rows:
        told = row.model_dump(mode="json")
        writer.writerow([_cell(told[name]) for name in _COLUMNS])
    return text.getvalue()


def _cell(value: object) -> str:
    if value is None or isinstance(value, bool):
        return "" if value is None else str(value).lower()
    text = str(value)
    told = _INNER_FORMULA.sub(r"\1'", text)
    return f"'{told}" if _FORMULA.match(text) and not _SIGNED_NUMBER.fullmatch(text) else told
