"""What the documentation says of settings, source keys, statuses, metrics and commands is what there is."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest
from typer.main import get_command

from console.call_query import CallQuery
from console.cli.main import app
from shared.config.setting_rows import variables
from shared.config.source_options import AGENT_PATTERN, DIAL_FIELDS, NUMBER_PATTERN
from shared.config.sources import Source, load_sources
from shared.domain.closing import Outcome
from shared.metrics.page import page
from shared.state import keys

_ROOT = Path(__file__).resolve().parents[2]
_SETTINGS = (_ROOT / "docs" / "settings.md").read_text("utf-8")
_CONSOLE = (_ROOT / "docs" / "console.md").read_text("utf-8")


def _rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_every_setting_is_documented_with_its_default_and_its_words() -> None:
    written = {row[0].strip("`"): row[1:] for row in _rows(_SETTINGS) if row[0].startswith("`CALLFOLD_")}
    expected = {name: [f"`{default}`" if default else "none", description] for name, default, description in variables()}
    assert written == expected


def test_every_key_of_a_source_is_documented() -> None:
    section = _SETTINGS.partition("## The sources file")[2]
    written = {row[0].strip("`"): row[1] for row in _rows(section)}
    assert set(written) == set(Source.model_fields) - {"name", "recording_login"}
    assert all(f"`{{{field}}}`" in written["dial_url"] for field in DIAL_FIELDS)
    assert f"`{AGENT_PATTERN}`" in written["agent_pattern"]
    assert f"`{NUMBER_PATTERN}`" in written["number_pattern"]


def test_the_example_of_a_sources_file_works_with_all_that_it_offers(tmp_path: Path) -> None:
    text = (_ROOT / "deploy" / "sources.example.toml").read_text("utf-8")
    everything = re.sub(r"^# ([a-z_]+ = )", r"\1", text, flags=re.MULTILINE)
    for written in (text, everything):
        path = tmp_path / "sources.toml"
        path.write_text(written, "utf-8")
        assert load_sources(path)
    offered = set(tomllib.loads(everything)["sources"]["acme"])
    assert {"dial_url", "allow_numbers", "deny_numbers", "agent_pattern", "number_pattern"} <= offered


def test_every_filter_and_outcome_is_documented() -> None:
    table = _CONSOLE.partition("## Find calls")[2].partition("## Recordings")[0]
    named = {name for row in _rows(table) for name in re.findall(r"`(\w+)`", row[0])}
    assert named == set(CallQuery.model_fields)
    (outcomes,) = [row[1] for row in _rows(table) if row[0] == "`outcome`"]
    assert set(re.findall(r"`(\w+)`", outcomes)) == set(Outcome)


def test_the_page_of_metrics_is_that_of_the_table() -> None:
    assert (_ROOT / "docs" / "metrics.md").read_text("utf-8") == page(), "run `python -m shared.metrics.page`"


def test_every_kind_of_key_in_redis_is_documented_with_what_happens_without_it() -> None:
    kinds = set(re.findall(r"`callfold:(?:\{\w+\}:)?([a-z_]+)", keys.__doc__ or ""))
    written = {word for row in _rows((_ROOT / "docs" / "redis.md").read_text("utf-8")) for word in re.findall(r"[a-z_]+", row[0])}
    assert {"facts", "members", "broker_move"} <= kinds <= written


def test_every_metric_is_registered_in_the_table() -> None:
    using = {
        str(path.relative_to(_ROOT).parent)
        for room in ("ingress", "worker", "shared", "console", "simulator")
        for path in (_ROOT / room).rglob("*.py")
        if "prometheus_client" in path.read_text("utf-8")
    }
    assert using == {"shared/metrics"}


_RUNBOOK = (_ROOT / "docs" / "runbook.md").read_text("utf-8")
_COMMANDS = sorted({line.strip() for line in (_CONSOLE + _RUNBOOK).splitlines() if line.startswith("    callfold ")})


@pytest.mark.parametrize("line", _COMMANDS)
def test_every_command_in_the_examples_is_understood(line: str) -> None:
    words = shlex.split(line.partition(" > ")[0])[1:]
    command = get_command(app)
    if words[0].startswith("--"):
        assert words[0] in {option for parameter in command.params for option in parameter.opts}
        return
    context = command.make_context("callfold", words, resilient_parsing=True)
    name, found, rest = command.resolve_command(context, words)  # type: ignore[attr-defined]
    assert name
    found.make_context(name, rest)


def test_the_readme_links_every_page_once_in_the_order_of_use() -> None:
    more = (_ROOT / "README.md").read_text("utf-8").partition("## More\n")[2]
    linked = re.findall(r"\]\(docs/([\w-]+\.md)\)", more)
    pages = {path.name for path in (_ROOT / "docs").glob("*.md")}
    assert pages - {*linked} == {"subscribing.md"}, "it has a section"
    assert len(linked) == len({*linked})
    assert re.findall(r"^(\w+):$", more, re.MULTILINE) == ["Install", "Operate", "Reference"]


def test_the_readme_shows_every_picture_in_both_themes_and_none_is_large() -> None:
    pictures = sorted((_ROOT / "docs" / "images").iterdir())
    readme = (_ROOT / "README.md").read_text("utf-8")
    assert sorted(set(re.findall(r'"docs/images/([^"]+)"', readme))) == [picture.name for picture in pictures]
    assert {picture.stem.rpartition("-")[2] for picture in pictures} == {"light", "dark"}
    assert all(picture.stat().st_size < 150_000 for picture in pictures)


def test_the_map_has_every_room() -> None:
    section = (_ROOT / "ARCHITECTURE.md").read_text("utf-8").partition("| room | ")[2].partition("\n\n")[0]
    mapped = {room for row in _rows(section) for room in re.findall(r"`([a-z_/]+/)`", row[0])}
    rooms = {
        f"{path.parent.relative_to(_ROOT)}/"
        for folder in ("shared", "worker", "console")
        for path in _ROOT.glob(f"{folder}/*/__init__.py")
    }
    assert mapped == rooms | {"ingress/", "simulator/", "clients/python/", "clients/typescript/"}


def test_every_room_has_a_contract_that_orders_its_inside() -> None:
    contracts = tomllib.loads((_ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    ordered = {container for contract in contracts if contract.get("exhaustive") for container in contract["containers"]}
    packages = {
        path.parent
        for folder in ("shared", "worker", "console", "ingress", "simulator")
        for path in _ROOT.glob(f"{folder}/**/__init__.py")
    }
    assert ordered == {str(package.relative_to(_ROOT)).replace("/", ".") for package in packages} | {"callfold_client"}


_TOP = ("ingress", "worker", "shared", "console", "simulator", "clients", "tests", "deploy", "docs", "bench")
_READMES = (_ROOT / folder / "README.md" for folder in ("deploy", "bench", "clients/python"))
_PAGES = [*_ROOT.glob("*.md"), *(_ROOT / "docs").rglob("*.md"), *_READMES]


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: str(page.relative_to(_ROOT)))
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text("utf-8")
    named = {_ROOT / name for name in re.findall(rf"`((?:{'|'.join(_TOP)})/[\w./-]*\w\.\w+)`", text)}
    linked = {page.parent / link for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", text)}
    assert sorted(str(path) for path in named | linked if not path.exists()) == []


def test_the_architecture_is_read_in_a_quarter_of_an_hour() -> None:
    assert len((_ROOT / "ARCHITECTURE.md").read_text("utf-8").splitlines()) <= 150


def test_every_claim_of_the_threat_model_names_a_test_that_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (_ROOT / "docs" / "security.md").read_text("utf-8"))
    assert len(named) > 10
    missing = [f"{path}::{name}" for path, name in named if not re.search(rf"def {name}\(", _text(_ROOT / path))]
    assert not missing


def _text(path: Path) -> str:
    return path.read_text("utf-8") if path.exists() else ""


def test_every_relative_link_leads_to_a_file_and_a_heading_that_exist() -> None:
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=_ROOT, capture_output=True, text=True, check=True).stdout.split()
    prose = {_ROOT / name: re.sub(r"```.*?```", "", (_ROOT / name).read_text("utf-8"), flags=re.DOTALL) for name in listed}
    headings = {path: {_anchor(title) for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)} for path, text in prose.items()}
    links = [(path, link) for path, text in prose.items() for link in re.findall(r"\]\(([^)\s]+)\)", text) if ":" not in link]
    assert len(links) > 300
    for path, link in links:
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), f"{path.name}: {link}"
        assert not anchor or anchor in headings[target], f"{path.name}: {link}"


def _anchor(title: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title.replace("`", ""))
    return re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-")
