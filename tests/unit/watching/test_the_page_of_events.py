"""docs/operator-events.md: its example is what the code publishes, its tables have every kind, and `tail` reads no other message."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import orjson
import pytest

from shared.amqp.delivery import Delivery
from shared.domain.condition import Kind, Observation, observed
from shared.streams.events import read_ops_event

OFFSET = {"x-stream-offset": 1}
PAGE = (Path(__file__).parents[3] / "docs" / "operator-events.md").read_text("utf-8")


def _example() -> dict[str, Any]:
    (block,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    return cast("dict[str, Any]", orjson.loads(block))


def test_the_example_is_what_the_code_publishes() -> None:
    example = _example()
    data = example["data"]
    seen = Observation(
        Kind(data["what"]), data["subject"], is_bad=True, at=data["since"], detail=data["detail"], figures=data["figures"]
    )
    record = observed(None, seen, now=data["since"], hold_s=60)
    assert record is not None
    assert record.event is not None
    assert list(orjson.loads(record.event.body).items()) == list(example.items())
    assert record.event.routing_key in PAGE


def test_the_tables_have_every_kind() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    assert sorted(rows) == sorted([*Kind, *Kind])


@pytest.mark.parametrize("more", [{}, {"id": None}, {"type": "callfold.call.completed.v1"}, {"data": "text"}])
def test_tail_reads_operator_events_alone(more: dict[str, object]) -> None:
    body = orjson.dumps(_example() | more)
    event = read_ops_event(Delivery(body, OFFSET, "ops.archive_away.raised", 1, cast("Any", None)))
    assert (event == _example()) == (not more)


def test_tail_passes_what_is_no_json() -> None:
    assert read_ops_event(Delivery(b"{", OFFSET, "ops.x", 1, cast("Any", None))) is None
