"""The two themes of the page differ in colors alone, so what holds of layout and focus in one holds in the other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

_STATIC = Path(__file__).resolve().parents[3] / "console" / "page" / "static"
_LINES = (_STATIC / "page.css").read_text("utf-8").splitlines()
_COLOR = r"#[0-9a-f]{3,6}"
_COLORS = re.compile(rf"light-dark\({_COLOR}, {_COLOR}\)")
_THEME = re.compile(r'(:root\[data-theme="(light|dark)"\] \{ color-scheme: \2; \}|  color-scheme: light dark;)')


def test_a_value_that_depends_on_the_theme_is_a_color() -> None:
    assert [line for line in _LINES if "light-dark" in _COLORS.sub("", line)] == []


@pytest.mark.parametrize("word", ["color-scheme", "data-theme"])
def test_no_rule_is_for_one_theme(word: str) -> None:
    found = [line for line in _LINES if word in line]
    assert found
    assert [line for line in found if not _THEME.fullmatch(line)] == []
