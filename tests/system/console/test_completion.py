"""Completion by the shell: a bash of its own in which a person installs it and presses Tab, and what zsh and fish would be told."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from console.cli.main import app
from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import callfold

PROMPT = "ready> "
# All that Tab can mean is written at once, one a line, and nothing is coloured or asked.
INPUTRC = "set show-all-if-ambiguous on\nset completion-query-items 0\nset page-completions off\nset enable-bracketed-paste off\n"
COMMANDS = {command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands}
GROUPS = {group.name or "" for group in app.registered_groups}


class Shell:
    """A bash at a terminal."""

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal
        self._read = ""

    def types(self, keys: str) -> None:
        self._read = ""
        os.write(self._terminal, keys.encode())

    async def shows(self, wanted: str) -> str:
        """Wait until something is on the screen; returns what was written since the keys, without control sequences."""
        shown = ""
        async with asyncio.timeout(LIMIT_S):
            while not re.search(wanted, shown):
                self._read += (await asyncio.to_thread(os.read, self._terminal, 65536)).decode()
                shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|[\x07\r]", "", self._read)
        return shown

    async def runs(self, command: str) -> str:
        self.types(f"{command}; echo done$?\n")
        return await self.shows(r"\ndone0\n")


@contextmanager
def bash(home: Path, sources: Path) -> Iterator[Shell]:
    """Start bash as a person does: interactive, with a home of its own."""
    terminal, its_side = pty.openpty()
    termios.tcsetwinsize(terminal, (200, 160))
    (home / ".inputrc").write_text(INPUTRC)
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    environment = {"HOME": str(home), "PATH": path, "TERM": "dumb", "LANG": "C.UTF-8", "CALLFOLD_SOURCES": str(sources)}
    environment["INPUTRC"] = str(home / ".inputrc")
    running = subprocess.Popen(
        ["bash", "-i"], stdin=its_side, stdout=its_side, stderr=its_side, env=environment, start_new_session=True
    )
    os.close(its_side)
    try:
        yield Shell(terminal)
    finally:
        running.kill()
        running.wait(LIMIT_S)
        os.close(terminal)


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    path = tmp_path / "sources.toml"
    path.write_text('[sources.acme]\nsecret = "a"\n[sources.zenith]\nsecret = "z"\n')
    return path


async def test_tab_completes_in_bash_once_it_is_installed(tmp_path: Path, sources: Path) -> None:
    (tmp_path / ".bashrc").write_text(f"PS1='{PROMPT}'\n")
    with bash(tmp_path, sources) as shell:
        await shell.runs("callfold --install-completion")
    with bash(tmp_path, sources) as shell:
        await shell.runs("true")
        shell.types("callfold \t")
        shown = await shell.shows(rf"\n{PROMPT}callfold $")
        assert set(shown.split()) >= COMMANDS | GROUPS
        shell.types("dead-letters \t")
        shown = await shell.shows(rf"\n{PROMPT}callfold dead-letters $")
        assert set(shown.split()) >= {"list", "show", "redrive", "drop"}
        for typed, wanted in (("red\t", "redrive "), ("--source zen\t", "zenith "), ("--queue rec\t", "recordings ")):
            shell.types(typed)
            await shell.shows(re.escape(wanted) + "$")
        shell.types("\x15callfold show ac\t")  # Ctrl-U: a new line
        await shell.shows("callfold show acme $")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_a_script_is_made_for_each_shell(shell: str) -> None:
    code, script, err = await callfold(_CALLFOLD_COMPLETE=f"source_{shell}")
    assert (code, err) == (0, "")
    assert f"_CALLFOLD_COMPLETE=complete_{shell}" in script


async def test_what_zsh_and_fish_are_told_are_names_and_whole_sentences(sources: Path) -> None:
    told = {"_TYPER_COMPLETE_ARGS": "callfold dead-letters ", "CALLFOLD_SOURCES": str(sources)}
    _, out, _ = await callfold(_CALLFOLD_COMPLETE="complete_fish", _TYPER_COMPLETE_FISH_ACTION="get-args", **told)
    assert [line.split("\t")[0] for line in out.splitlines()] == ["list", "show", "redrive", "drop"]
    assert "e.g." not in out
    told["_TYPER_COMPLETE_ARGS"] = "callfold adapter-link "
    _, out, _ = await callfold(_CALLFOLD_COMPLETE="complete_zsh", **told)
    assert '"acme"' in out
    assert '"zenith"' in out


async def test_completion_is_silent_where_the_sources_cannot_be_read(tmp_path: Path) -> None:
    told = {"_TYPER_COMPLETE_ARGS": "callfold show ", "CALLFOLD_SOURCES": str(tmp_path / "none.toml")}
    code, out, err = await callfold(_CALLFOLD_COMPLETE="complete_zsh", **told)
    assert (code, out.strip(), err) == (0, "_files", "")  # zsh offers files then
