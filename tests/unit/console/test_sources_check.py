"""`callfold sources check` checks a file as the processes do, and prints what it would change."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from console.cli.app import app
from shared.errors import ConfigError

NOW = '[sources.acme]\nsecret = "hunter2-hunter2-a"\ncountry = "DK"\n[sources.gone]\nsecret = "hunter2-hunter2-b"\n'
NEXT = (
    '[sources.acme]\nsecret = "hunter3-hunter3-a"\nprevious_secrets = ["hunter2-hunter2-a"]\ncountry = "SE"\n'
    '[sources.new]\nsecret = "hunter2-hunter2-c"\n'
)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    running, new = tmp_path / "sources.toml", tmp_path / "new.toml"
    running.write_text(NOW)
    new.write_text(NEXT)
    monkeypatch.setenv("CALLFOLD_SOURCES", str(running))
    return running, new


def test_what_would_change_is_printed_without_secrets(files: tuple[Path, Path]) -> None:
    _, new = files
    done = CliRunner().invoke(app, ["sources", "check", str(new)])
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        f"{new} is valid: 2 sources.",
        "+ new: added",
        '~ acme: country changed, "DK" -> "SE"',
        "~ acme: secret changed",
        "~ acme: previous_secrets changed",
        "- gone: removed, so its callbacks get 404",
    ]


def test_a_program_reads_the_same_as_json(files: tuple[Path, Path]) -> None:
    running, new = files
    done = CliRunner().invoke(app, ["sources", "check", str(new), "--json"])
    assert orjson.loads(done.stdout) == {
        "file": str(new),
        "valid": True,
        "sources": ["acme", "new"],
        "compared": True,
        "added": ["new"],
        "changed": {"acme": {"country": '"DK" -> "SE"', "secret": "changed", "previous_secrets": "changed"}},
        "removed": ["gone"],
    }
    done = CliRunner().invoke(app, ["sources", "check", str(running)])
    assert (done.exit_code, done.stdout) == (0, f"{running} is valid: 2 sources.\nIt changes nothing.\n")


@pytest.mark.parametrize(
    ("text", "host", "said"),
    [
        ("[sources.acme]\nsecret = 'x'\nagent_pattern = '['\n", "127.0.0.1", "acme, agent_pattern: not a regular.*See line 3 of"),
        ("[sources.acme]\nsecret = 'short'\n", "192.0.2.1", "The secret of source acme has 5 characters"),
        (NEXT.replace("hunter2-hunter2-a", "short"), "192.0.2.1", "A previous secret of source acme has 5 characters"),
    ],
)
def test_a_fault_is_named_with_source_key_and_line(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, text: str, host: str, said: str
) -> None:
    _, new = files
    monkeypatch.setenv("CALLFOLD_INGRESS_HOST", host)
    new.write_text(text)
    with pytest.raises(ConfigError, match=said):
        CliRunner().invoke(app, ["sources", "check", str(new)], catch_exceptions=False)
    done = CliRunner().invoke(app, ["sources", "check", str(new), "--json"])
    assert (done.exit_code, orjson.loads(done.stdout)["valid"]) == (2, False)
    with pytest.raises(ConfigError, match=said):
        raise ConfigError(orjson.loads(done.stdout)["problem"])


def test_a_valid_file_is_not_compared_with_one_that_has_a_fault(files: tuple[Path, Path]) -> None:
    running, new = files
    running.write_text("[sources.acme")
    done = CliRunner().invoke(app, ["sources", "check", str(new)])
    assert done.exit_code == 0
    assert "it was not compared" in done.stderr
    assert orjson.loads(CliRunner().invoke(app, ["sources", "check", str(new), "--json"]).stdout)["compared"] is False
