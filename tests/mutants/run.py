"""`make mutants`: break the code on purpose, one patch at a time, and see the tests that the patch names fail.

Exit code 1 if a mutant survives, 2 if there is none of a name. Names given as arguments limit it to these.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.helpers.pace import PACE

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PARTS = ("shared", "ingress", "worker", "console", "simulator", "clients", "tests", "deploy", "docs", "bench")
# Tests of another marker than `volume`: they need programs that are installed where the project is, not in the copy.
_NODE_TESTS = "tests/clients/"
_NODE_FOLDERS = ("clients/typescript", "tests/clients")
_TIMEOUT_S = 1200 * PACE
_LIMIT = {"TESTS_LIMIT_S": "60"}  # many a mutant is killed by a wait that never ends


def apply(patch: Path, directory: Path) -> None:
    """Copy the project and break it."""
    for part in PARTS:
        shutil.copytree(ROOT / part, directory / part, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
    shutil.copy(ROOT / "pyproject.toml", directory)
    subprocess.run(["git", "apply", str(patch)], cwd=directory, check=True)


def _link_node_packages(directory: Path) -> None:
    """Let the copy use the packages of Node that `make test-clients` has installed."""
    subprocess.run(["sh", "tests/clients/tools.sh"], cwd=ROOT, check=True)
    shutil.copytree(ROOT / "build" / "clients", directory / "build" / "clients")
    for folder in _NODE_FOLDERS:
        (directory / folder / "node_modules").symlink_to(ROOT / folder / "node_modules")


def killers(patch: Path) -> list[str]:
    """Read which tests a patch says will fail."""
    found = re.search(r"^Killed by: (.+)$", patch.read_text("utf-8"), re.MULTILINE)
    if not found:
        raise SystemExit(f"{patch.name} does not say what kills it")
    return found[1].split()


def failure(patch: Path) -> str | None:
    """Run the tests against a mutant; returns the first that failed, or None where it survived."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as directory:
        apply(patch, Path(directory))
        if any(test.startswith(_NODE_TESTS) for test in killers(patch)):
            _link_node_packages(Path(directory))
            return _failed(patch, directory, "clients")
        return _failed(patch, directory, "not volume") or _failed(patch, directory, "volume")


def _failed(patch: Path, directory: str, size: str) -> str | None:
    """Run the tests of one size or marker; returns the first that failed."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", size, "-p", "no:cacheprovider", *killers(patch)]
    # Processes that the tests start find the other packages in their working directory, but not the client.
    environment = os.environ | _LIMIT | {"PYTHONPATH": str(Path(directory, "clients", "python", "src"))}
    done = subprocess.run(
        command, cwd=directory, capture_output=True, text=True, env=environment, timeout=_TIMEOUT_S, check=False
    )
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    if done.returncode == pytest.ExitCode.TESTS_FAILED and failed:
        return failed[1]
    if done.returncode in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        return None
    raise SystemExit(f"{patch.name}: the tests did not run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def main() -> int:
    """Try every mutant and tell what killed it."""
    names = set(sys.argv[1:])
    patches = [patch for patch in sorted(HERE.glob("*.patch")) if not names or patch.stem in names]
    if unknown := names - {patch.stem for patch in patches}:
        sys.stderr.write(f"no mutant {', '.join(sorted(unknown))}: expected the name of a patch in {HERE}, without .patch\n")
        return 2
    survivors = 0
    for patch in patches:
        started = time.monotonic()
        killer = failure(patch)
        survivors += killer is None
        told = f"killed by {killer}" if killer else "SURVIVED"
        sys.stdout.write(f"{patch.stem:<32} {told}  ({time.monotonic() - started:.0f} s)\n")
        sys.stdout.flush()
    sys.stdout.write(f"{len(patches) - survivors} of {len(patches)} mutants killed\n")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
