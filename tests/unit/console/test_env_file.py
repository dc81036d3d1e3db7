"""The file `env`: what a shell has after it was read."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from console.local.env_file import path_command, write_env_file

SHELLS = [name for name in ("sh", "bash", "dash", "zsh") if shutil.which(name)]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("name", ["plain", "with spaces", 'it\'s; $HOME `id` "*"'])
def test_callfold_is_on_the_path_once_however_often_the_file_is_read(tmp_path: Path, shell: str, name: str) -> None:
    scripts = tmp_path / name / "bin"
    scripts.mkdir(parents=True)
    (scripts / "callfold").write_text("#!/bin/sh\necho found\n")
    (scripts / "callfold").chmod(0o755)
    (tmp_path / "env").write_text(path_command(scripts), "utf-8")
    script = 'set -eu; . "$1/env"; . "$1/env"; callfold; printf %s "$PATH"'
    done = subprocess.run(
        [shutil.which(shell) or shell, "-c", script, "-", tmp_path],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == (f"found\n{scripts}:/usr/bin:/bin", "")


def test_a_directory_without_callfold_is_not_put_on_the_path(tmp_path: Path) -> None:
    assert path_command(tmp_path) == ""


def test_values_reach_the_shell_unchanged(tmp_path: Path) -> None:
    write_env_file(tmp_path / "env", {"CALLFOLD_AMQP_URL": 'amqp://it\'s "$HOME"; here'})
    script = 'set -eu; . "$1/env"; printf %s "$CALLFOLD_AMQP_URL"'
    done = subprocess.run(["sh", "-c", script, "-", tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout == 'amqp://it\'s "$HOME"; here'
