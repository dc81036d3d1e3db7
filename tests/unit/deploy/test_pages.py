"""The commands of the pages about installation name services, files and commands that exist."""

from __future__ import annotations

import itertools
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from console.cli.main import app
from tests.helpers.compose import DEPLOY, read
from tests.helpers.page_commands import commands

_DOCS = Path(__file__).resolve().parents[3] / "docs"
_PAGES = ("install-compose.md", "upgrade.md", "backup.md", "sizing.md")
_MADE = {"sources.toml", ".env", "erlang_cookie", "grafana_password", "postgres_password", "new.toml", "sbom.cdx.json"}
"""Files that the pages have the reader make."""


def _lines(page: str) -> list[str]:
    text = (_DOCS / page).read_text("utf-8")
    return [line.strip().partition("   #")[0].strip() for line in text.splitlines() if line.startswith("    ")]


def _in_code(page: str) -> list[str]:
    return _lines(page) + re.findall(r"`([^`\n]+)`", (_DOCS / page).read_text("utf-8"))


@cache
def _command() -> Any:  # noqa: ANN401 - the type is that of the command line's library
    return get_command(app)


def _callfold_commands() -> list[tuple[str, str]]:
    found = []
    for page in _PAGES:
        for line in _in_code(page):
            words = re.sub(r"^(?:CALLFOLD_\w+=\S+ )+", "", line)
            if match := re.match(r"(?:docker compose (?:exec|run)(?: -\S+(?: \S+:\S+)?)* \S+ )?(callfold .*)", words):
                found.append((page, match[1].partition(" <")[0].partition(" > ")[0]))
    return found


@pytest.mark.parametrize(("page", "line"), _callfold_commands())
def test_every_command_of_callfold_is_understood(page: str, line: str) -> None:
    words = shlex.split(line)[1:]
    if words[0].startswith("-"):
        return
    command = _command()
    context = command.make_context("callfold", words, resilient_parsing=True)
    name, found, rest = command.resolve_command(context, words)
    assert name
    if "--help" not in words:
        found.make_context(name, rest)


@pytest.mark.parametrize("page", _PAGES)
def test_every_service_and_profile_of_compose_that_a_page_names_exists(page: str) -> None:
    compose = read("compose.yaml", "compose.ha.yaml")
    services = set(compose["services"])
    profiles = {profile for service in compose["services"].values() for profile in service.get("profiles", [])}
    named = [line for line in _in_code(page) if line.startswith("docker compose ")]
    assert named or page != "install-compose.md"
    for line in named:
        words = shlex.split(re.sub(r"\s[<>].*", "", line))
        for option, value in itertools.pairwise(words):
            assert option != "-f" or (DEPLOY / value).is_file(), line
            assert option != "--profile" or value in profiles, line
        for word in words:
            assert not re.fullmatch(r"(ingress|worker|console|history|redis|rabbitmq|haproxy|sentinel)(-\w+)?", word) or (
                word in services or word == "ingress-3"  # the one that the page has the reader add
            ), line


@pytest.mark.parametrize("page", _PAGES)
def test_every_file_that_a_command_reads_exists_or_is_made_before(page: str) -> None:
    named = {name for line in _lines(page) for name in re.findall(r"(?<![\w/$.])([a-z_]+\.(?:toml|yaml|json|conf|cfg))\b", line)}
    missing = {name for name in named if not (DEPLOY / name).exists()}
    assert missing <= _MADE | {"compose.lock.yaml", "docker-compose.yaml"}


def test_the_secrets_of_the_compose_files_are_those_that_the_page_makes_and_git_ignores() -> None:
    files = {Path(secret["file"]).name for secret in read("compose.yaml", "compose.ha.yaml")["secrets"].values()}
    assert files | {".env"} <= _MADE
    ignored = (DEPLOY.parent / ".gitignore").read_text("utf-8").splitlines()
    assert {f"/deploy/{name}" for name in files | {".env"}} <= set(ignored)
    made = "\n".join(_lines("install-compose.md"))
    assert all(re.search(rf"(> |cp sources\.example\.toml ){re.escape(name)}\b", made) for name in files)


def test_a_restore_begins_with_what_the_backup_has_made() -> None:
    backed_up = " ".join(
        commands("backup.md", "Back up while everything runs") + commands("backup.md", "Back up the messages of RabbitMQ")
    )
    made = set(re.findall(r"\$BACKUP/([\w.]+)", backed_up))
    used = set(re.findall(r"\$BACKUP/([\w.]+)", " ".join(commands("backup.md", "Restore"))))
    assert used <= made
    assert made - used == {"definitions.json"}, "only needed if RabbitMQ alone is lost"
