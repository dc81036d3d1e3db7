"""Calls as CSV that is safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence

from console.call_query import CallRow

CSV = "text/csv"
_COLUMNS = tuple(name for name, field in CallRow.model_fields.items() if not field.exclude)
# The start of a formula, also after blanks and quotes, and with full-width signs. A signed number is no formula.
_SIGNS = r"[=+\-@\uff1d\uff0b\uff0d\uff20]"
_FORMULA = re.compile(rf"[\t\r\n]|[\s'\"]*{_SIGNS}")
# A spreadsheet that splits at semicolons or tabs begins a cell there and ignores the quotes around the value.
_INNER_FORMULA = re.compile(rf"([;\t\r\n])(?=(?:[^\S\t\r\n]|['\"])*{_SIGNS})")
_SIGNED_NUMBER = re.compile(r"[+-][0-9]+(\.[0-9]+)?")


def write_csv(rows: Sequence[CallRow]) -> str:
    """Write calls as CSV (RFC 4180) in which no cell is a formula."""
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerow(_COLUMNS)
    for row in rows:
        values = row.model_dump(mode="json")
        writer.writerow([_cell(values[name]) for name in _COLUMNS])
    return text.getvalue()


def _cell(value: object) -> str:
    if value is None or isinstance(value, bool):
        return "" if value is None else str(value).lower()
    text = str(value)
    escaped = _INNER_FORMULA.sub(r"\1'", text)
    return f"'{escaped}" if _FORMULA.match(text) and not _SIGNED_NUMBER.fullmatch(text) else escaped
