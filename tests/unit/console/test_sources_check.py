"""`callfold sources check` checks a file as the processes do, and prints what it would change."""

from __future__ import annotations

import re
from pathlib import Path

import orjson
import pytest

from console.commands.sources_check import check_file
from shared.config.settings import load_settings
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


def _check(path: Path, *, as_json: bool = False) -> int:
    return check_file(load_settings(), path, as_json=as_json)


def test_what_would_change_is_printed_without_secrets(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    _, new = files
    assert _check(new) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{new} is valid: 2 sources.",
        "+ new: added",
        '~ acme: country changed, "DK" -> "SE"',
        "~ acme: secret changed",
        "~ acme: previous_secrets changed",
        "- gone: removed, so its callbacks get 404",
    ]


def test_a_program_reads_the_same_as_json(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    running, new = files
    assert _check(new, as_json=True) == 0
    assert orjson.loads(capsys.readouterr().out) == {
        "file": str(new),
        "valid": True,
        "sources": ["acme", "new"],
        "compared": True,
        "added": ["new"],
        "changed": {"acme": {"country": '"DK" -> "SE"', "secret": "changed", "previous_secrets": "changed"}},
        "removed": ["gone"],
    }
    assert _check(running) == 0
    assert capsys.readouterr().out == f"{running} is valid: 2 sources.\nIt changes nothing.\n"


@pytest.mark.parametrize(
    ("text", "host", "said"),
    [
        ("[sources.acme]\nsecret = 'x'\nagent_pattern = '['\n", "127.0.0.1", "acme, agent_pattern: not a regular.*See line 3 of"),
        ("[sources.acme]\nsecret = 'short'\n", "192.0.2.1", "The secret of source acme has 5 characters"),
        (NEXT.replace("hunter2-hunter2-a", "short"), "192.0.2.1", "A previous secret of source acme has 5 characters"),
    ],
)
def test_a_fault_is_named_with_source_key_and_line(
    files: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    text: str,
    host: str,
    said: str,
) -> None:
    _, new = files
    monkeypatch.setenv("CALLFOLD_INGRESS_HOST", host)
    new.write_text(text)
    with pytest.raises(ConfigError, match=said):
        _check(new)
    assert _check(new, as_json=True) == 2
    printed = orjson.loads(capsys.readouterr().out)
    assert printed["valid"] is False
    assert re.search(said, printed["problem"])


def test_all_faults_of_a_file_are_named(files: tuple[Path, Path]) -> None:
    _, new = files
    new.write_text('[sources.acme]\nprevious_secrets = "x"\ndial_ulr = "y"\n[sources.other]\ncountry = 5\n')
    with pytest.raises(ConfigError) as raised:
        _check(new)
    said = str(raised.value)
    for text, line in (("acme, previous_secrets: must be a list", 2), ("Did you mean `dial_url`?", 3), ("other, country: ", 5)):
        assert re.search(rf"{re.escape(text)}[^:]*See line {line} of", said), said


def test_of_very_many_faults_the_rest_is_counted(files: tuple[Path, Path]) -> None:
    _, new = files
    new.write_text("".join(f"[sources.s{number}]\ncountry = 5\n" for number in range(12)))
    with pytest.raises(ConfigError, match=r"Source s0, .*Source s9, .*\. More faults: 2\.$") as raised:
        _check(new)
    assert "s10" not in str(raised.value)


def test_a_valid_file_is_not_compared_with_one_that_has_a_fault(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    running, new = files
    running.write_text("[sources.acme")
    assert _check(new) == 0
    assert "it was not compared" in capsys.readouterr().err
    assert _check(new, as_json=True) == 0
    assert orjson.loads(capsys.readouterr().out)["compared"] is False


def test_a_file_that_is_missing_is_an_argument_and_no_setting(files: tuple[Path, Path]) -> None:
    _, new = files
    missing = new.with_name("missing.toml")
    with pytest.raises(ConfigError) as raised:
        _check(missing)
    assert str(raised.value) == f"Cannot read the sources file {missing}: No such file or directory. Check its path."
