"""The files inside the Helm chart that follow from others are up to date. Only `make test-deploy` runs Helm itself."""

from __future__ import annotations

from deploy.helm.manifests import CHART, DERIVED, copies, schema
from shared.config.setting_rows import variables


def test_copies_inside_the_chart_equal_their_originals() -> None:
    made = copies()
    assert {path: path.read_bytes() for path in made} == made, "run `make manifests`"


def test_the_schema_of_the_values_has_every_setting_that_the_chart_does_not_derive() -> None:
    assert (CHART / "values.schema.json").read_text("utf-8") == schema(), "run `make manifests`"
    assert {name for name, _, _ in variables()} >= DERIVED
