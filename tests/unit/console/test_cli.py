"""What a command says of missing servers, and that every setting is documented."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from console.local.stack import LocalStack
from shared.config.setting_rows import variables
from tests.helpers.pace import LIMIT_S

ROOT = Path(__file__).resolve().parents[3]


async def test_missing_servers_are_named_with_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("console.local.stack._SERVER_DIRECTORIES", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Exception, match=r"redis-server.*apt-get install.*dnf install.*brew install"):
        await LocalStack(tmp_path / "stack").__aenter__()


def test_every_setting_is_documented_with_its_default() -> None:
    text = (ROOT / "docs" / "settings.md").read_text()
    for variable, default, description in variables():
        assert f"| `{variable}` | {f'`{default}`' if default else 'none'} | {description} |" in text


def _run(script: str, stdout: int) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False, timeout=LIMIT_S
    )
    return done.returncode, done.stderr


def test_output_that_cannot_be_written_is_one_sentence() -> None:
    with Path("/dev/full").open("wb") as full:
        script = 'import sys; sys.argv = ["callfold", "settings"]; from console.cli.main import main; main()'
        assert _run(script, full.fileno()) == (1, "callfold: Cannot write: No space left on device.\n")


@pytest.mark.parametrize("error", ["BrokenPipeError()", "ExceptionGroup('', [BrokenPipeError()])"])
def test_a_reader_that_has_enough_is_no_error(error: str) -> None:
    """Such as `head`, after which `print` raises within the groups of tasks that read events."""
    script = f"""
from console.cli import main
def app(prog_name):
    print("x" * 100)
    raise {error}
main.app = app
main.main()
"""
    reader, writer = os.pipe()
    os.close(reader)
    assert _run(script, writer) == (1, "")
    os.close(writer)


def test_another_error_of_the_system_is_still_a_fault() -> None:
    script = "from console.cli import main\ndef app(prog_name): raise OSError(9, 'a fault')\nmain.app = app\nmain.main()"
    code, err = _run(script, subprocess.PIPE)
    assert code == 1
    assert "Traceback" in err
