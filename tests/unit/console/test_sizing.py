"""`callfold sizing`: what a number of calls needs follows from the measured costs, and the page names the same figures."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.main import get_command
from typer.testing import CliRunner

from console.cli.main import app
from console.commands import sizing
from console.commands.sizing import GIB, MIB, Load, Part, size
from shared.amqp.topology import CALLBACKS_FOLD_BYTES, topology
from shared.config.settings import Settings

_PAGE = (Path(__file__).resolve().parents[3] / "docs" / "sizing.md").read_text("utf-8")


def _parts(load: Load) -> dict[str, Part]:
    return {part.name: part for part in size(load).parts}


def test_a_small_site_needs_the_least_and_a_second_of_what_must_not_be_away() -> None:
    parts = _parts(Load(100))
    assert [(part.name, part.count) for part in parts.values()] == [
        *(("ingress", 2), ("worker", 2), ("console", 1), ("history", 1)),
        *(("redis", 3), ("rabbitmq", 3), ("archive", 1)),
    ]
    assert parts["ingress"] == Part("ingress", 2, 0.25, 256 * MIB, GIB, "spool for 4 h")


def test_the_figures_of_a_large_site_are_those_of_the_formulas() -> None:
    load = Load(1_000_000)
    assert size(load).peak_callbacks_per_s == 500
    parts = _parts(load)
    # 500 callbacks a second at 2.1 ms are 1.05 cores: two workers at 60 %, and one that can be away.
    assert (parts["worker"].count, parts["worker"].cores) == (3, 1)
    assert parts["rabbitmq"].cores == 1.75  # 0.95 at 60 %
    assert parts["history"].disk_bytes == 1900 * GIB  # 5300 bytes of 365 million calls
    assert parts["archive"].disk_bytes == 1_400_000 * GIB
    # 7 days of facts and 15 days of the publication, half as much again.
    kept = 1_000_000 * (7 * 4 * sizing.REDIS_OF_CALLBACK + 15 * sizing.REDIS_OF_PUBLICATION)
    assert 1.5 * kept <= parts["redis"].memory_bytes < 1.5 * kept + 512 * MIB


@given(st.integers(1, 10**8), st.integers(1, 10**8), st.floats(1, 100), st.floats(1, 100))
def test_more_calls_or_callbacks_never_need_less_in_total(one: int, other: int, few: float, many: float) -> None:
    low = _parts(Load(min(one, other), callbacks_per_call=min(few, many)))
    high = _parts(Load(max(one, other), callbacks_per_call=max(few, many)))
    for name, part in low.items():
        assert part.count <= high[name].count
        assert part.memory_bytes <= high[name].memory_bytes
        if name not in {"ingress", "worker"}:  # the spool of each is smaller if there are more
            assert (part.cores, part.disk_bytes) <= (high[name].cores, max(part.disk_bytes, high[name].disk_bytes))


@pytest.mark.parametrize(
    ("load", "word"),
    [
        (Load(6_000_000), "definitions.json"),
        (Load(1_000_000, outage_hours=8), "CALLFOLD_SPOOL_MAX_BYTES"),
        (Load(10_000_000), "Redis Cluster"),
    ],
)
def test_what_needs_a_decision_is_a_note(load: Load, word: str) -> None:
    assert any(word in note for note in size(load).notes)
    assert size(Load(10_000)).notes == ()


def test_the_limits_that_the_notes_name_are_those_in_force() -> None:
    queues = {queue.name: queue for queue in topology(()).queues}
    journal = queues["callbacks.journal"]
    assert f"'max-length-bytes': {sizing.JOURNAL_MAX_BYTES}" in repr(journal)
    assert sizing.QUEUES_BYTES == 2 * CALLBACKS_FOLD_BYTES
    assert Settings.model_fields["spool_max_bytes"].default == sizing.SPOOL_MAX_BYTES
    assert Settings.model_fields["retain_seconds"].default == Load(1).retain_days * 86_400


def test_the_command_prints_a_table_or_one_object() -> None:
    runner = CliRunner()
    said = runner.invoke(app, ["sizing", "--calls-per-day", "20000"])
    assert said.exit_code == 0
    assert "20,000 calls a day" in said.output
    assert "Assumed: callbacks_per_call 4" in said.output
    printed = orjson.loads(runner.invoke(app, ["sizing", "--calls-per-day", "20000", "--json"]).output)
    assert {part["name"] for part in printed["parts"]} == {
        "ingress",
        "worker",
        "console",
        "history",
        "redis",
        "rabbitmq",
        "archive",
    }
    assert runner.invoke(app, ["sizing"]).exit_code == 2
    assert runner.invoke(app, ["sizing", "--calls-per-day", "0"]).exit_code == 2


def test_no_number_beyond_its_range_is_computed_with() -> None:
    (command,) = [each for each in get_command(app).commands.values() if each.name == "sizing"]  # type: ignore[attr-defined]
    numbers = [option for option in command.params if option.opts[0] not in {"--json", "--help"}]
    assert len(numbers) == 10
    for option, value in product(numbers, ("-1", "inf", "nan", "1e300")):
        arguments = ["sizing", "--calls-per-day=20000", f"{option.opts[0]}={value}"]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 2, arguments
        assert option.opts[0] in result.output


@pytest.mark.parametrize(
    "name",
    [
        "INGRESS_MS",
        "WORKER_MS",
        "HISTORY_MS",
        "REDIS_MS",
        "RABBITMQ_MS",
        "JOURNAL_OF_CALLBACK",
        "JOURNAL_OF_CALL",
        "HISTORY_OF_CALL",
        "REDIS_OF_CALLBACK",
        "REDIS_OF_PUBLICATION",
    ],
)
def test_the_page_has_the_figures_that_the_command_computes_with(name: str) -> None:
    figures = {number.replace(",", "") for number in re.findall(r"[\d,]+(?:\.\d+)?", _PAGE)}
    assert f"{getattr(sizing, name):g}" in figures
