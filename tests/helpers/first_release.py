"""The code of the first release, from the history of the repository, and processes that run it with the packages of this one."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class NoHistoryError(Exception):
    """The clone lacks the commit of the first release."""


def unpack_first_release(directory: Path) -> Path:
    """Write the files of the first release into a directory.

    Raises:
        NoHistoryError: this is no clone, or a shallow one.
    """
    archive = directory / "first_release.tar"
    with archive.open("wb") as file:
        subprocess.run(["git", "archive", _commit(), "shared", "ingress", "worker", "console"], cwd=ROOT, stdout=file, check=True)
    code = directory / "first_release"
    with tarfile.open(archive) as packed:
        packed.extractall(code, filter="data")
    archive.unlink()
    return code


def _commit() -> str:
    command = ["git", "log", "--reverse", "--format=%H", "--grep=^Release [0-9.]*$"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    commits = found.stdout.split()
    if found.returncode or not commits:
        raise NoHistoryError(
            "The commit of the first release is not in this clone. Fetch the whole history: `git fetch --unshallow`."
            f" {found.stderr.strip()}"
        )
    return commits[0]


def runs(code: Path) -> dict[str, str]:
    """Return the environment in which the interpreter imports the packages of another release."""
    return {"PYTHONPATH": str(code), "PYTHONSAFEPATH": "1"}
