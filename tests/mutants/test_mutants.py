"""The mutants still fit the code: each patch applies. `make mutants` runs them against the tests they name."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants.run import HERE, ROOT, apply, killers, main

PATCHES = sorted(HERE.glob("*.patch"))


def test_there_are_mutants() -> None:
    assert len(PATCHES) >= 12


def test_a_name_that_no_mutant_has_is_an_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["run", "untold-content", "nobody"])
    assert main() == 2
    assert capsys.readouterr().err.startswith("no mutant nobody: ")


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.stem)
def test_a_mutant_applies_and_names_its_killers(patch: Path, tmp_path: Path) -> None:
    apply(patch, tmp_path)
    assert all((ROOT / killer).exists() for killer in killers(patch))
