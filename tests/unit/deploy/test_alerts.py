"""Alerts, their cases and the runbook fit each other, and name only metrics and labels that Callfold has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from shared.domain.pbx_report import DRIFT_ALARM, LOSS_ALARM
from shared.metrics import TABLE
from tests.helpers.alert_cases import CASES
from tests.helpers.promql import NAME, faults_of

ROOT = Path(__file__).resolve().parents[3]
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text("utf-8")
SEVERITIES = {"critical", "warning", "info"}


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules.yml").read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


ALERTS = [rule for rule in rules() if "alert" in rule]
NAMES = {rule["alert"] for rule in ALERTS}


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("alert") or rule["record"])
def test_a_rule_names_only_series_that_exist(rule: dict[str, Any]) -> None:
    assert faults_of(rule["expr"]) == []
    records = {rule["record"] for rule in rules() if "record" in rule}
    assert set(re.findall(r"\bcallfold:[\w:]+", rule["expr"])) <= records


@pytest.mark.parametrize(
    ("expression", "faults"),
    [
        ("callfold_fold_lags_seconds > 1", ["callfold_fold_lags_seconds"]),
        ("callfold_fold_lag_seconds_bucket", ["callfold_fold_lag_seconds_bucket"]),
        ('callfold_queue_full{name="x"}', ["callfold_queue_full: name"]),
        ('callfold_recordings_total{result=~"stored|lost"}', ["callfold_recordings_total: result=lost"]),
        ('rate(callfold_fold_seconds_bucket{job="a", instance!="b"}[5m])', []),
    ],
)
def test_a_wrong_name_label_or_value_is_found(expression: str, faults: list[str]) -> None:
    assert faults_of(expression) == faults


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: f"{rule['alert']}/{rule['labels']['severity']}")
def test_an_alert_says_how_bad_it_is_what_happened_and_where_to_read_on(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in SEVERITIES
    annotations = rule["annotations"]
    assert set(annotations) == {"summary", "description", "runbook_url"}
    assert annotations["runbook_url"] == f"docs/runbook.md#{rule['alert'].lower()}"
    assert "{{" not in annotations["summary"], "it is the title of a group of alerts"


def test_every_alert_has_a_section_in_the_order_of_the_rules_and_every_section_an_alert() -> None:
    sections = re.findall(r"^## (\w+)$", RUNBOOK, re.MULTILINE)
    assert sections == list(dict.fromkeys(rule["alert"] for rule in ALERTS))
    for section in RUNBOOK.split("\n## ")[1:]:
        for heading in ("**Meaning.**", "**At stake.**", "**Look", "**Clears**"):
            assert heading in section, section.partition("\n")[0]


def test_the_table_of_the_runbook_has_the_severities_of_each_alert() -> None:
    rows = dict(re.findall(r"^\| \[(\w+)\]\(#\w+\) \| ([^|]+) \|", RUNBOOK, re.MULTILINE))
    assert list(rows) == list(dict.fromkeys(rule["alert"] for rule in ALERTS))
    for alert, text in rows.items():
        severities = {rule["labels"]["severity"] for rule in ALERTS if rule["alert"] == alert}
        assert set(re.findall("|".join(SEVERITIES), text)) == severities


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    fired = {fired for case in CASES for fired in case.fires}
    alone = {name for name in fired if "/" not in name}
    for rule in ALERTS:
        severe = f"{rule['alert']}/{rule['labels']['severity']}"
        assert severe in fired or rule["alert"] in alone, severe
    silent = {case.alert for case in CASES if not any(fired.startswith(case.alert) for fired in case.fires)}
    assert NAMES - silent == set()


def test_a_missing_metric_is_noticed_for_every_alert_that_is_never_unknown() -> None:
    """Vanished series of these metrics would silence a critical alert. Others are missing while their value is unknown, or are of a PBX."""
    watched = set(
        re.findall(r"absent\((callfold_\w+)\)", next(r for r in ALERTS if r["alert"] == "CallfoldMetricMissing")["expr"])
    )
    critical = [
        rule for rule in ALERTS if rule["labels"]["severity"] == "critical" and not rule["alert"].startswith("CallfoldPbx")
    ]
    read = {name for rule in critical for name, _ in NAME.findall(rule["expr"])}
    assert {name for name in read if not TABLE[name].is_measured} - watched == {"callfold_build_info"}


def test_a_critical_alert_mutes_no_warning_about_something_else() -> None:
    """What an alert with two severities is about: a server, a stream, or all processes of a role."""
    (inhibition,) = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alertmanager.yml").read_text("utf-8"))["inhibit_rules"]
    critical = {rule["alert"] for rule in ALERTS if rule["labels"]["severity"] == "critical"}
    twice = [rule["expr"] for rule in ALERTS if rule["alert"] in critical and rule["labels"]["severity"] == "warning"]
    about = {label for each in twice for labels in re.findall(r"\bby \(([^)]*)\)", each) for label in labels.split(", ")}
    assert {"alertname"} | about - {"job", "instance"} == set(inhibition["equal"])


@pytest.mark.parametrize(("alert", "least"), [("CallfoldPbxLosingCallbacks", LOSS_ALARM), ("CallfoldPbxClockDrift", DRIFT_ALARM)])
def test_an_alert_of_a_pbx_fires_where_the_page_reports_a_finding(alert: str, least: float) -> None:
    (expression,) = [rule["expr"] for rule in ALERTS if rule["alert"] == alert]
    assert float(expression.rpartition(">=")[2]) == least
    assert ("_low_ratio" in expression) == (alert == "CallfoldPbxLosingCallbacks"), "the finding is about the lower bound"


def test_alerts_of_delays_stay_silent_while_a_cause_is_known_and_the_runbook_says_which() -> None:
    rows = re.findall(r"^\| \[(\w+)\]\(#\w+\) \| [^|]+ \| [^|]+ \| ([^|]*) \|", RUNBOOK, re.MULTILINE)
    documented = {name for name, silent in rows if "the fold is interrupted" in silent}
    silenced = {rule["alert"] for rule in ALERTS if "unless on () (callfold:interrupted:recent == 1)" in rule["expr"]}
    assert documented == silenced
    assert {"CallfoldFoldLag", "CallfoldTimersHeld", "CallfoldRecordingsWaiting", "CallfoldPbxSilent"} <= silenced
