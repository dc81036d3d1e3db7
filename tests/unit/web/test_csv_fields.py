"""Fields of CSV are safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import io

import pytest

from console.lookup.csv_export import write_csv
from tests.helpers import page_fakes as fakes


@pytest.mark.parametrize(
    ("text", "is_neutralised"),
    [
        *(
            (f"{before}{sign}1+1", True)
            for before in ("", " ", "\u00a0 ", '"', "'", " '\"")
            for sign in "=+-@\uff1d\uff0b\uff0d\uff20"
        ),
        *((f"{first}text", True) for first in "\t\r\n"),
        ("+4512345678", False),
        ("-1.5", False),
        ("+1.2.3", True),
        ("+\u00b2", True),
        (" +45", True),
        ("a=1", False),
        (" text", False),
        ("", False),
    ],
)
def test_every_field_is_quoted_and_none_is_a_formula(text: str, is_neutralised: bool) -> None:  # noqa: FBT001
    row = fakes.row().model_copy(update={"agent": text, "reference": None})
    written = write_csv([row])
    assert all(field.startswith('"') and field.endswith('"') for line in written.split("\r\n")[:1] for field in line.split(","))
    ((agent, reference),) = [(told["agent"], told["reference"]) for told in csv.DictReader(io.StringIO(written, newline=""))]
    assert agent == ("'" if is_neutralised else "") + text
    assert reference == ""
    assert ',"",' in written


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x;=1+1", "x;'=1+1"),
        ('x; "-1;@a', "x;' \"-1;'@a"),
        ("x\t=1", "x\t'=1"),
        ("x\r\n+1", "x\r\n'+1"),
        ("x;+45", "x;'+45"),
        ("=1;\uff1d1", "'=1;'\uff1d1"),
        ("x;\t=1", "x;\t'=1"),
        ("x;y=1;;a\tb", "x;y=1;;a\tb"),
        ("x=1,-2", "x=1,-2"),
    ],
)
def test_no_formula_begins_where_a_spreadsheet_with_another_separator_begins_a_cell(text: str, expected: str) -> None:
    written = write_csv([fakes.row().model_copy(update={"agent": text})])
    assert [told["agent"] for told in csv.DictReader(io.StringIO(written, newline=""))] == [expected]
