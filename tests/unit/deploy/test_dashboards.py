"""The dashboards of deploy/grafana are those of the code, name only metrics that exist, and show their units."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from shared.metrics import TABLE
from shared.metrics.dashboards import BOARDS
from shared.metrics.grafana import SCHEMA_VERSION, dashboard
from shared.metrics.panels import Panel, curves, level, quantiles, rate
from tests.helpers.promql import faults_of

GRAFANA = Path(__file__).resolve().parents[3] / "deploy" / "grafana"
LOADED: dict[str, dict[str, Any]] = {board.name: json.loads(dashboard(board)) for board in BOARDS}
PANELS: list[Panel] = [panel for board in BOARDS for section in board.sections for panel in section.panels]


def test_the_files_are_those_of_the_code() -> None:
    written = {file.stem: file.read_text("utf-8") for file in GRAFANA.glob("*.json")}
    assert written == {board.name: dashboard(board) for board in BOARDS}, "run `python -m shared.metrics.grafana`"


@pytest.mark.parametrize("name", LOADED)
def test_a_dashboard_has_unique_ids_and_asks_for_its_data_source(name: str) -> None:
    content = LOADED[name]
    assert content["uid"] == f"callfold-{name}"
    assert content["schemaVersion"] == SCHEMA_VERSION
    ids = [panel["id"] for panel in content["panels"]]
    assert len(ids) == len(set(ids))
    variables = {variable["name"] for variable in content["templating"]["list"]}
    assert {variable for variable in re.findall(r"\$\{?(\w+)", json.dumps(content)) if not variable.startswith("__")} == variables
    for panel in content["panels"]:
        targets = panel.get("targets", [])
        assert {target["datasource"]["uid"] for target in targets} <= {"${datasource}"}
        assert len({target["refId"] for target in targets}) == len(targets)


@pytest.mark.parametrize("name", LOADED)
def test_panels_do_not_overlap(name: str) -> None:
    taken: set[tuple[int, int]] = set()
    for place in (panel["gridPos"] for panel in LOADED[name]["panels"]):
        assert place["x"] + place["w"] <= 24
        cells = set(itertools.product(range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])))
        assert not cells & taken
        taken |= cells


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.title)
def test_a_panel_names_metrics_that_exist_and_explains_them(panel: Panel) -> None:
    for query in panel.queries:
        assert faults_of(query.expression) == []
        named = re.findall(r"callfold_\w+", query.expression)
        helps = {TABLE[name.removesuffix("_bucket")].help for name in named}
        assert helps & {query.about} or "callfold_build_info" in named or "ALERTS" in query.expression


def test_the_unit_is_that_of_the_name() -> None:
    units = {"seconds": "s", "bytes": "bytes", "ratio": "percentunit"}
    for panel in PANELS:
        for expression in (query.expression for query in panel.queries):
            name = re.findall(r"(?:callfold_|ALERTS)\w*", expression)[0].removesuffix("_bucket").removesuffix("_max")
            is_rate = re.match(r"sum.*rate", expression)
            assert panel.unit == ("cps" if is_rate else units.get(name.rpartition("_")[2], "short")), expression


def test_a_sum_counts_nothing_twice() -> None:
    """Each console and each worker exports the figures of the installation. Only these gauges are of one process each."""
    own = {"callfold_spool_bytes", "callfold_waiting_bytes", "callfold_http_connections"}
    expressions = [query.expression for panel in PANELS for query in panel.queries]
    sums = [found for each in expressions if "rate(" not in each and (found := re.match(r"sum(?: by \([^)]*\) )?\((\w+)", each))]
    assert {found[1] for found in sums} == own | {"max"}


def test_the_number_of_dead_letters_is_that_of_their_queues() -> None:
    (panel,) = [panel for panel in PANELS if panel.title == "Dead letters"]
    assert [query.expression for query in panel.queries] == ['max by (queue) (callfold_queue_messages{queue=~".*[.]dead"})']


def test_a_query_of_an_unknown_metric_kind_or_label_is_refused() -> None:
    with pytest.raises(KeyError):
        rate("callfold_unknown_total")
    with pytest.raises(ValueError, match="is a gauge"):
        rate("callfold_fold_lag_seconds")
    with pytest.raises(ValueError, match="status"):
        level("callfold_fold_lag_seconds", "status")
    with pytest.raises(ValueError, match="one unit"):
        curves("Two units", level("callfold_fold_lag_seconds"), level("callfold_spool_bytes"))


def test_quantiles_are_of_all_processes_of_a_role() -> None:
    of_workers, *_ = quantiles("callfold_loop_lag_seconds", role=next(iter(TABLE["callfold_fold_lag_seconds"].roles)))
    assert of_workers.expression == (
        "histogram_quantile(0.5, sum by (le) (rate(callfold_loop_lag_seconds_bucket[$__rate_interval])"
        ' * on (job, instance) group_left () callfold_build_info{role="worker"}))'
    )


def test_grafana_is_given_the_data_source_and_the_dashboards() -> None:
    provisioning = GRAFANA / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text("utf-8"))["datasources"]
    assert (source["type"], source["isDefault"]) == ("prometheus", True)
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "callfold.yml").read_text("utf-8"))["providers"]
    assert provider["options"]["path"].startswith("/var/lib/grafana/")
