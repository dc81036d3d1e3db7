"""Parameters of a callback are compared with the adapter link; values and spellings do not matter."""

from __future__ import annotations

import pytest

from shared.domain.adapter_link import SAMPLE_LINK, make_link, parse_link
from shared.domain.link_changes import compare_with_link

SAMPLE = parse_link(SAMPLE_LINK + "&site=4")
FULL = parse_link(make_link("http://127.0.0.1", "acme", None))
USUAL = "CallType=API&Event=pickup&CallID=7&RequestID=513&EventCode=2&IsCallRecorded=&Guid=&site=4"


@pytest.mark.parametrize(
    ("query", "unknown", "missing"),
    [
        (USUAL, (), ()),
        (USUAL.lower().replace("&", "&amp;"), (), ()),
        (USUAL + "&token=again", (), ()),
        (USUAL + "&Queue=Sales&Queue=2", ("Queue",), ()),
        (USUAL.replace("&Guid=", ""), (), ("Guid",)),
        (USUAL.replace("&site=4", ""), (), ("site",)),
        (USUAL.replace("Guid", "CallUUID"), ("CallUUID",), ("Guid",)),
        (USUAL + "& Sons", (), ()),
        (USUAL + "&" + "x" * 70 + "=1&\x07=2", ("x" * 64,), ()),
    ],
)
def test_differences_from_the_link(query: str, unknown: tuple[str, ...], missing: tuple[str, ...]) -> None:
    differences = compare_with_link(SAMPLE, query)
    assert (differences.unknown, differences.missing) == (unknown, missing)
    assert {*differences.arrived, *missing} == {*SAMPLE.meanings, *SAMPLE.constants}


def test_pieces_of_a_recording_url_are_no_parameters() -> None:
    url = "https://pbx/_cros_/master/?uid=form&target=self&sectok=3511b272&nId=103870"
    query = "&".join(f"{name}={url if meaning == 'RecordingURL' else ''}" for name, meaning in FULL.meanings.items())
    assert compare_with_link(FULL, query).unknown == ()
    assert compare_with_link(FULL, query).missing == ()
