"""Messages that nothing can be made of."""

from __future__ import annotations

import orjson
import pytest
import structlog
from structlog.testing import capture_logs

from callfold_client import lenient_decoding as decoding
from shared.amqp.delivery import marker_round
from shared.amqp.topology import MARKER
from shared.clock import utc_now
from shared.domain.ids import SourceName
from shared.domain.raw_event import CallbackEvent, Undecodable, decode, encode, join
from shared.domain.revision_summary import amends
from tests.helpers.servers import lines_of
from worker.folding.batch import read_batch


def _body(request_id: int) -> bytes:
    return join(encode(CallbackEvent(SourceName("default"), utc_now(), line)) for line in lines_of(request_id))


# A 64-bit timestamp in microseconds: the year 57868, which no datetime can be.
_MICROSECONDS = (
    b"\x05stamp" + b"T" + (1_764_000_000_000_000_000).to_bytes(8, "big"),
    b"\x03\xff\xfe\xfd" + b"S" + (1).to_bytes(4, "big") + b"x",
)


@pytest.mark.parametrize("entry", _MICROSECONDS)
def test_a_header_that_cannot_be_read_is_no_error(entry: bytes) -> None:
    table = len(entry).to_bytes(4, "big") + entry
    consumed, told = decoding.field_table(table + b"more")
    assert consumed == len(table)
    assert told in ({}, {"stamp": None})
    assert decoding.short_str(b"\x03a\xffbc") == (4, "a\ufffdb")


def test_a_time_that_no_clock_tells_is_refused_and_a_body_beyond_all_bounds_is_one_letter() -> None:
    for year in ("1969", "9999"):
        (event,) = decode(
            _body(1)[:-1].replace(b"[", b"[", 1).split(b"},{")[0].replace(b'"' + utc_now()[:4].encode(), f'"{year}'.encode())
            + b"}]"
        )
        assert isinstance(event, Undecodable)
    (letter,) = decode(orjson.dumps([0] * 60_000))
    assert isinstance(letter, Undecodable)
    (letter,) = decode(b'["' + b"x" * (17 << 20) + b'"]')
    assert isinstance(letter, Undecodable)


@pytest.mark.parametrize("number", ["9" * 400, "9" * 5000, "-1", "", "1.5", "\u0663", 7])
def test_a_marker_with_a_number_that_is_no_round_is_no_marker(number: object) -> None:
    assert marker_round({MARKER: number}) is None


def test_a_revision_of_which_nothing_else_is_known_is_amended_by_whatever_comes() -> None:
    assert amends("", '{"filed_at": ""}')


def test_a_flood_of_messages_that_nobody_understands_is_a_few_lines_and_each_is_a_dead_letter() -> None:
    structlog.configure(cache_logger_on_first_use=False)
    events = [Undecodable(b"x%d" % number, f"problem {number}") for number in range(1000)]
    with capture_logs() as lines:
        letters = read_batch(events, {}).dead_letters
    assert [letter.body for letter in letters] == [event.body for event in events]
    assert len([line for line in lines if line["event"] == "message_dead_lettered"]) <= 5
