"""One call as the console answers it: the JSON is read back by the page, whole."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import orjson

from console.lookup.detail import detail_of
from console.lookup.timeline import Timeline
from console.page.call_models import CallPage
from shared.archive.storage import Archive
from shared.config.sources import Source
from shared.domain.leg import Leg
from shared.state.stored_call import PublicationState, StoredCall
from tests.helpers.folding import ADAPTER
from tests.helpers.page_fakes import at, call, facts

if TYPE_CHECKING:
    from console.lookup.timeline_reader import Timelines


class _NoTimelines:
    async def read(self, *_: object) -> Timeline:
        return Timeline()


async def test_the_json_of_a_call_is_read_back_with_every_value_of_its_legs(tmp_path: Path) -> None:
    derived = call()
    state = StoredCall(facts(), 1, PublicationState.PUBLISHED, "", "1", wake_at_ms=None)
    source = Source(name=derived.key.source, adapter=ADAPTER, secret=None)
    detail = await detail_of(cast("Timelines", _NoTimelines()), Archive(tmp_path.as_uri()), source, derived, state, {})
    page = CallPage.of(orjson.loads(orjson.dumps(detail.to_json())), at(80))
    assert [_comparable(leg) for leg in page.legs] == [_comparable(leg) for leg in derived.legs]
    assert page.record == orjson.loads(orjson.dumps(detail.record))
    assert dict(page.facts) == facts()


def _comparable(leg: Leg) -> dict[str, object]:
    leg = replace(leg, ignored=tuple(leg.ignored), ignored_values=tuple(leg.ignored_values))  # JSON has lists
    return {each.name: getattr(leg, each.name) for each in fields(leg)}
