"""A Prometheus that watches a running installation evaluates every expression of the alerts and of the dashboards."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
import yaml

from shared.metrics import TABLE
from shared.metrics.dashboards import BOARDS
from tests.helpers.prometheus import RULES
from tests.helpers.promql import NAME
from tests.helpers.servers import Servers, Stack, eventually, eventually_nothing
from tests.helpers.watched_stack import Watched, watched

EVERY_S = 1
PANELS = [
    (board.name, panel.title, query.expression)
    for board in BOARDS
    for section in board.sections
    for panel in section.panels
    for query in panel.queries
]
# These exist only with TLS, with timestamps in callbacks, after hours of calls, or once a value was ignored.
UNKNOWN_HERE = {
    "callfold_certificate_expiry_timestamp_seconds",
    "callfold_ignored_values_total",
    "callfold_pbx_clock_drift_ratio",
    "callfold_pbx_clock_offset_seconds",
}


@pytest_asyncio.fixture(scope="module")
async def stack(fresh_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Watched]:
    """An installation in which calls were completed, recordings stored and pages read."""
    async with watched(Servers(fresh_stack, tmp_path_factory.mktemp("watched")), every_s=EVERY_S) as running:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{running.console_port}/") as response:
            await response.read()
        stored = 'callfold_recordings_total{source="acme", result="stored"} > 1'
        await eventually(lambda: running.prometheus.query(stored))
        await eventually(lambda: running.prometheus.query(f"count_over_time(up[1m]) >= {20 // EVERY_S}"))
        yield running


def rules() -> list[dict[str, str]]:
    return [rule for group in yaml.safe_load(Path(RULES).read_text("utf-8"))["groups"] for rule in group["rules"]]


def names_known_here(expression: str) -> set[str]:
    return set(re.findall(r"callfold_\w+", expression)) - UNKNOWN_HERE


async def test_every_panel_returns_data(stack: Watched) -> None:
    async def empty() -> list[tuple[str, str, str]]:
        found = []
        for board, title, expression in PANELS:
            now = expression.replace("$__rate_interval", "20s").replace("$source", ".*")
            if not await stack.prometheus.query(now) and (names_known_here(expression) or "ALERTS" in expression):
                found.append((board, title, now))
        return found

    await eventually_nothing(empty)


async def test_every_selector_of_an_alert_finds_its_series(stack: Watched) -> None:
    async def missing() -> set[str]:
        found = set()
        for rule in rules():
            for match in NAME.finditer(re.sub(r'"callfold_\w+"', "", rule["expr"])):
                known = names_known_here(match[0])
                if known and not await stack.prometheus.query(f"last_over_time({match[0]}[5m])"):
                    found.add(match[0])
        return found

    await eventually_nothing(lambda: _sorted(missing()))


async def _sorted(of: object) -> list[str]:
    return sorted(await of)  # type: ignore[misc]


async def test_no_rule_fails_and_no_alert_fires(stack: Watched) -> None:
    groups = (await stack.prometheus.get("rules"))["groups"]
    evaluated = [rule for group in groups for rule in group["rules"]]
    assert len(evaluated) == len(rules())
    assert [(rule["name"], rule["lastError"]) for rule in evaluated if rule["health"] != "ok"] == []
    assert await stack.prometheus.firing() == []


async def test_a_recording_rule_says_what_is_recorded(stack: Watched) -> None:
    counts = {series["metric"]["role"]: float(series["value"][1]) for series in await stack.prometheus.query("callfold:up:count")}
    assert counts == {"ingress": 1, "worker": 2, "console": 1, "history": 1}
    (interrupted,) = await stack.prometheus.query("callfold:interrupted:recent")
    assert interrupted["value"][1] in {"0", "1"}, "it is 1 for five minutes after a process was without RabbitMQ, as in a start"


async def test_every_metric_of_the_table_is_scraped_from_its_roles_alone(stack: Watched) -> None:
    found: dict[str, set[str]] = {}
    for series in await stack.prometheus.query('group by (__name__, job) ({__name__=~"callfold_.+"})'):
        name = re.sub("_(bucket|sum|count)$", "", series["metric"]["__name__"])
        found.setdefault(name if name in TABLE else series["metric"]["__name__"], set()).add(series["metric"]["job"])
    expected = {name: {f"callfold-{role}" for role in row.roles} for name, row in TABLE.items()}
    assert {name: jobs for name, jobs in found.items() if jobs - expected[name]} == {}
    open_ended = {name for name, row in TABLE.items() if row.is_measured or (row.labels and not any(row.first_series(["acme"])))}
    assert {name for name in expected if found.get(name) != expected[name]} <= open_ended
