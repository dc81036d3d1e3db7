"""Prometheus evaluates the rules of deploy/prometheus: each alert fires in its cases, and no other does."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path

import pytest
import yaml

from tests.helpers.alert_cases import CASES, STEP_S, Case

PROMETHEUS = Path(__file__).resolve().parents[2] / "deploy" / "prometheus"
RULES = PROMETHEUS / "rules.yml"
SEVERITIES = {
    rule["alert"]: rule["labels"]["severity"]
    for group in yaml.safe_load(RULES.read_text("utf-8"))["groups"]
    for rule in group["rules"]
    if "alert" in rule
}


def run(*command: str | Path) -> str:
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def test_promtool_and_amtool_accept_every_file() -> None:
    assert "rules found" in run("promtool", "check", "rules", "--lint=all", RULES)
    assert "SUCCESS" in run("promtool", "check", "config", "--lint=all", PROMETHEUS / "prometheus.yml")
    assert "SUCCESS" in run("amtool", "check-config", PROMETHEUS / "alertmanager.yml")


def expected(case: Case) -> list[dict[str, object]]:
    fires = Counter(fired.partition("/")[::2] for fired in case.fires)
    return [
        {"labels": f'{{alertname="{name}", severity="{severity or SEVERITIES[name]}"}}', "value": count}
        for (name, severity), count in fires.items()
    ]


def unit_test(case: Case) -> dict[str, object]:
    firing = 'group by (alertname, severity) (ALERTS{alertstate="firing"})'
    return {
        "interval": f"{STEP_S}s",
        "input_series": [{"series": name, "values": values} for name, values in case.series().items()],
        "promql_expr_test": [{"expr": firing, "eval_time": case.at, "exp_samples": expected(case)}],
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.alert}: {case.what}")
def test_alerts_fire_in_their_case_and_no_other_does(case: Case, tmp_path: Path) -> None:
    file = tmp_path / "test.yml"
    content = {"rule_files": [str(RULES)], "evaluation_interval": f"{STEP_S}s", "tests": [unit_test(case)]}
    file.write_text(yaml.safe_dump(content), "utf-8")
    run("promtool", "test", "rules", file)
