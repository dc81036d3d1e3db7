"""The start of a command: it imports what it needs and no more, whatever the speed of the machine."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from console.cli import calls
from console.cli.app import app
from console.cli.quick_start import import_help
from shared.domain.closing import Outcome
from shared.domain.leg_event import CallType
from tests.helpers.pace import LIMIT_S

_HEAVY = {
    *("aio_pika", "aiohttp", "aiormq", "asyncio", "jinja2", "numpy", "obstore", "orjson", "phonenumbers", "prometheus_client"),
    *("pydantic", "pydantic_settings", "pygments", "pyrage", "redis", "soundfile", "sqlalchemy", "structlog", "uvloop"),
}
_SCRIPT = """
import sys
sys.argv = ["callfold", *sys.argv[1:]]
from console.cli.main import main
try:
    main()
finally:
    sys.stdout.flush()
    sys.stderr.write("imported " + " ".join(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def _run(*arguments: str, **environment: str) -> tuple[str, set[str]]:
    """Run a command line in an interpreter of its own; returns its output and what it has imported."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("CALLFOLD_", "COVERAGE_"))}
    command = [sys.executable, "-c", _SCRIPT, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False, env=clean | environment)
    return done.stdout, set(done.stderr.rpartition("imported ")[2].split())


def _complete(words: str, shell: str = "bash") -> tuple[str, set[str]]:
    asked = {
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
        "_TYPER_COMPLETE_ARGS": words,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    return _run(_CALLFOLD_COMPLETE=f"complete_{shell}", **asked)


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ("--version", "callfold "),
        ("--help", "Dead letters and recovery"),
        ("calls --help", "--outcome"),
        ("dead-letters --help", "redrive"),
    ],
)
def test_help_imports_nothing_of_what_commands_need(arguments: str, shown: str) -> None:
    output, imported = _run(*arguments.split())
    assert shown in output
    assert imported.isdisjoint(_HEAVY), sorted(imported.intersection(_HEAVY))
    assert arguments != "--version" or imported.isdisjoint({"typer", "rich"})


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("callfold de", {"dead-letters", "demo"}),
        ("callfold calls --st", {"--state"}),
        ("callfold calls --outcome a", {"answered", "agent_missed", "agent_hung_up"}),
        ("callfold show ", {"default"}),
        ("callfold dead-letters redrive --no", {"--no-wait"}),
        ("callfold dead-letters list --queue ", {"callbacks", "forward", "recordings"}),
    ],
)
def test_completion_imports_nothing_of_what_commands_need(words: str, expected: set[str]) -> None:
    output, imported = _complete(words)
    assert set(output.split()) == expected
    assert imported.isdisjoint({*_HEAVY, "rich"}), sorted(imported.intersection({*_HEAVY, "rich"}))


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_completion_of_shells_that_show_help_imports_nothing_of_what_commands_need(shell: str) -> None:
    output, imported = _complete("callfold calls --st", shell)
    assert "--state" in output
    assert imported.isdisjoint(_HEAVY), sorted(imported.intersection(_HEAVY))


def test_calls_imports_no_broker_no_archive_and_no_database() -> None:
    _, imported = _run("calls", CALLFOLD_REDIS_URL="redis://127.0.0.1:1/0")
    assert "redis" in imported
    unused = {"aio_pika", "aiormq", "aiohttp", "jinja2", "obstore", "sqlalchemy", "soundfile", "numpy", "phonenumbers"}
    assert imported.isdisjoint(unused), sorted(imported.intersection(unused))


def test_the_values_in_help_are_those_of_the_enumerations() -> None:
    assert (tuple(Outcome), tuple(CallType)) == (calls._OUTCOMES, calls._TYPES)
    assert app.info.name == "callfold"


def test_what_help_does_not_use_of_rich_stays_as_it_was() -> None:
    import_help()
    from rich.markdown import Markdown  # noqa: PLC0415
    from rich.traceback import Traceback  # noqa: PLC0415

    assert {Markdown.__module__, Traceback.__module__} == {"rich.markdown", "rich.traceback"}
