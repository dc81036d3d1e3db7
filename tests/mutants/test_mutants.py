"""The mutants still fit the code: each patch applies. `make mutants` runs them against the tests they name."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.mutants.run import HERE, PARTS, ROOT, apply, killers, main

PATCHES = sorted(HERE.glob("*.patch"))


def test_there_are_mutants() -> None:
    assert len(PATCHES) >= 12


def test_a_name_that_no_mutant_has_is_an_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["run", "untold-content", "nobody"])
    assert main() == 2
    assert capsys.readouterr().err.startswith("no mutant nobody: ")


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.stem)
def test_a_mutant_applies_and_names_its_killers(patch: Path) -> None:
    alone = os.environ | {"GIT_CEILING_DIRECTORIES": str(ROOT.parent)}  # in no repository but its own
    subprocess.run(["git", "apply", "--check", str(patch)], cwd=ROOT, env=alone, check=True)
    assert all((ROOT / killer).exists() for killer in killers(patch))


def test_a_mutant_is_a_copy_of_the_project_that_is_broken_in_one_place(tmp_path: Path) -> None:
    apply(PATCHES[0], tmp_path)
    files = [path.relative_to(ROOT) for part in PARTS for path in (ROOT / part).rglob("*.py") if "node_modules" not in path.parts]
    broken = [file for file in files if (tmp_path / file).read_bytes() != (ROOT / file).read_bytes()]
    assert [f"+++ b/{file}" for file in broken] == re.findall(r"^\+\+\+ b/.+$", PATCHES[0].read_text("utf-8"), re.MULTILINE)
