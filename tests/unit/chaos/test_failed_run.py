"""A chaos run that fails names the cause, and its directory is deleted with the disks in it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from console.local import processes, stack
from tests.chaos import __main__ as program
from tests.chaos.options import Options

ROOT = Path(__file__).parents[3]
_DISKS = """
import asyncio, shutil, sys
from pathlib import Path
from tests.chaos.disks import enter_namespace, small_disk

enter_namespace([sys.executable, *sys.orig_argv[1:]])
directory = Path(sys.argv[1])
skipped = []

async def use():
    if disk := await small_disk(directory / "archive", 1 << 20, skipped):
        (disk.directory / "file").write_text("x")
        with (disk.directory / "held").open("w"):
            await disk.unmount()

asyncio.run(use())
shutil.rmtree(directory)
print(*skipped)
"""


def test_the_directory_can_be_deleted_once_its_disks_are_unmounted(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    subprocess.run([sys.executable, "-c", _DISKS, directory], cwd=ROOT, check=True)
    assert not directory.exists()


def test_the_causes_of_a_group_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fail(_options: Options, _directory: Path) -> NoReturn:
        raise ExceptionGroup("in a group", [ExceptionGroup("inner", [OSError("redis did not start")]), TimeoutError()])

    monkeypatch.setenv("CHAOS_DIRECTORY", str(tmp_path))
    monkeypatch.setattr(program, "chaos", fail)
    for module, name in ((processes, "_READY_TIMEOUT_S"), (stack, "_START_TIMEOUT_S")):
        monkeypatch.setattr(module, name, getattr(module, name))  # `main` sets them for its process
    assert program.main() == 2
    assert capsys.readouterr().err.startswith("chaos: redis did not start; TimeoutError; logs are in ")
