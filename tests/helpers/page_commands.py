"""The commands of a page of docs/, section by section, to be run as a reader would."""

from __future__ import annotations

from pathlib import Path

_DOCS = Path(__file__).resolve().parents[2] / "docs"


def commands(page: str, section: str) -> list[str]:
    """Return the indented lines of a section of a page, in their order."""
    text = (_DOCS / page).read_text("utf-8")
    assert f"\n## {section}\n" in text, f"docs/{page} has no section {section!r}"
    body = text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    found = [line[4:] for line in body.splitlines() if line.startswith("    ")]
    assert found, f"section {section!r} of docs/{page} has no command"
    return found


def variables(page: str) -> dict[str, str]:
    """Return what the page sets before its first section, as in `BACKUP=/backup`."""
    text = (_DOCS / page).read_text("utf-8").partition("\n## ")[0]
    pairs = (line.strip().partition("=") for line in text.splitlines() if line.startswith("    ") and "=" in line)
    return {name: value for name, _, value in pairs}
