"""The check of English finds what it is to find, and nothing where there is nothing; log events and exit codes are documented."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import english

_OPERATIONS = (english.ROOT / "docs" / "operations.md").read_text("utf-8")
_LONG = " ".join(["word"] * 26)


def _found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> list[str]:
    monkeypatch.setattr(english, "ROOT", tmp_path)
    path = tmp_path / name
    path.write_text(text, "utf-8")
    return [finding.problem for finding in english.findings([path])]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("page.md", "The worker tells Redis."),
        ("page.md", f"A list:\n\n- {_LONG}."),
        ("page.md", f"| a | b |\n|---|---|\n| x | {_LONG} |"),
        ("page.md", "One thing: another: a third."),
        ("module.py", '"""Of ours."""'),
        ("module.py", 'def f() -> None:\n    """Tell whether it is so."""'),
        ("module.py", "x = 1  # begun anew"),
        ("module.py", 'raise ValueError(f"nobody knows {x}")'),
        ("module.py", f'f(help="{_LONG}")'),
        ("module.py", "told = 1"),
        ("module.py", "def is_told() -> bool: ..."),
        ("script.lua", "-- the letter is buried"),
        ("page.html", "<p>Whoever reads this</p>"),
    ],
)
def test_what_breaks_a_rule_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    assert _found(tmp_path, monkeypatch, name, text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("page.md", "The worker publishes a dead letter. `tell` is code: so is this.\n\n    told\n\n```\nwhoever\n```\n"),
        ("page.md", f"{' '.join(['Word'] * 25)}. {' '.join(['Word'] * 25)}."),
        (
            "module.py",
            '"""Dead letters."""\n\ndef dead_letters() -> None:\n    """Return the dead letters.\n\n    Attributes:\n        a: one\n        b: two\n    """',
        ),
        ("module.py", 'x = "told"  # noqa: S105'),
    ],
)
def test_what_keeps_the_rules_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    assert _found(tmp_path, monkeypatch, name, text) == []


def test_the_check_reads_every_kind_of_file() -> None:
    assert {path.suffix for path in english.checked_files()} >= {".py", ".md", ".lua", ".sh", ".html", ".toml"}


def _log_events() -> Iterator[tuple[str, str]]:
    """Yield each log event of the code with a level at which it is logged. Client and examples log sentences, for other programs."""
    for path in english.checked_files():
        if path.suffix != ".py" or {"clients", "examples"} & {*path.parts}:
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in {"debug", "info", "warning", "error", "exception"}
                and ast.unparse(node.func.value).rpartition(".")[2] == "log"
            ):
                event = node.args[0]
                assert isinstance(event, ast.Constant), f"{path}:{node.lineno}: a log event is a literal"
                yield str(event.value), {"exception": "error"}.get(node.func.attr, node.func.attr)
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Outage":
                is_error = any(keyword.arg == "is_error" for keyword in node.keywords)
                levels = ("error" if is_error else "warning", "info")
                yield from ((str(ast.literal_eval(event)), level) for event, level in zip(node.args[1:], levels, strict=False))


def test_every_log_event_is_documented_with_its_levels_and_says_what_happened_to_what() -> None:
    section = _OPERATIONS.partition("## Log events")[2].partition("\n## ")[0]
    documented = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", section, re.MULTILINE)
    events: dict[str, set[str]] = {}
    for event, level in _log_events():
        events.setdefault(event, set()).add(level)
    assert [event for event, _ in documented] == sorted(events)
    assert {event: set(re.findall("debug|info|warning|error(?!`)", levels)) for event, levels in documented} == events
    assert [event for event in events if not re.fullmatch(r"[a-z]+(_[a-z0-9]+)+", event)] == []


def test_every_exit_code_is_documented() -> None:
    section = _OPERATIONS.partition("## Exit codes")[2].partition("\n## ")[0]
    assert re.findall(r"^\| (\d+) \|", section, re.MULTILINE) == ["0", "1", "2", "3", "4", "130"]
