"""Deliberate faults in the chart, each of which some check refuses. `manifest_mutants.yaml` lists them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from tests.helpers.manifest_rules import faults
from tests.helpers.manifests import CHART, RefusedError, rendered

MUTANTS = {
    each.pop("fault"): each for each in yaml.safe_load(Path(__file__).with_name("manifest_mutants.yaml").read_text("utf-8"))
}
# The values with which a fault shows: those of parts that are off by default.
_PARTS = ("servers", "autoscaling", "monitoring")
_VALUES = (
    'gateway={"enabled": true, "parentRefs": [{"name": "public"}]}',
    'image={"pullSecrets": ["registry"]}',
    'tracing={"endpoint": "http://collector:4318"}',
    'spoolDrain={"ordinals": [2]}',
)


@pytest.fixture(scope="module")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the chart, so that a test may change it."""
    copy = tmp_path_factory.mktemp("charts") / "callfold"
    shutil.copytree(CHART, copy)
    return copy


@pytest.mark.parametrize("name", MUTANTS)
def test_a_fault_is_refused(chart: Path, name: str) -> None:
    mutant = MUTANTS[name]
    path = chart / mutant["file"]
    text = path.read_text("utf-8")
    assert mutant["replace"] in text
    path.write_text(text.replace(mutant["replace"], mutant["by"]), "utf-8")
    try:
        assert mutant["answer"] in "\n".join(_all_faults(chart))
    finally:
        path.write_text(text, "utf-8")


def test_without_a_fault_nothing_is_refused(chart: Path) -> None:
    assert _all_faults(chart) == []


def _all_faults(chart: Path) -> list[str]:
    try:
        return faults(rendered(*_PARTS, chart=chart, values=_VALUES)) or faults(rendered(chart=chart))
    except RefusedError as error:
        return [str(error)]
