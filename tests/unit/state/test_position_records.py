"""The messages of `state.journal`: what was encoded is decoded, and no other message is taken for one."""

from __future__ import annotations

import pytest

from shared.state.position_records import Record, decode, encode_map, encode_record, encode_sync
from shared.state.stored_position import Known


def test_a_record_and_a_map_are_read_back() -> None:
    assert decode(encode_record("a", {3: (17, 5)}, 99)) == Record("a", {3: (17, {"a": (5, 99)})})
    known = {0: Known(17, {"a": (5, 99), "b": (6, 98)}), 1: Known(18, {})}
    decoded = decode(encode_map("a", known, 41, 100))
    assert decoded == Record("a", {0: (17, known[0].writers), 1: (18, {})}, upto=41)
    assert decode(encode_sync("a", "mark", 100)) == Record("a", sync="mark")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"v": 2, "writer": "a", "at": 1, "positions": {}}',
        b'{"v": 1, "writer": 1, "at": 1, "positions": {}}',
        b'{"v": 1, "writer": "a", "at": 1, "positions": {"0": [1]}}',
        b'{"v": 1, "writer": "a", "at": 1, "positions": {"0": ["1", 2]}}',
        b'{"v": 1, "writer": "a", "at": 1, "positions": {"0": [1, {"b": 2}]}}',
    ],
)
def test_another_message_is_no_record(body: bytes) -> None:
    assert decode(body) is None


def test_partitions_that_do_not_exist_are_ignored() -> None:
    assert decode(b'{"v": 1, "writer": "a", "at": 1, "positions": {"16": [1, 2], "x": [1, 2]}}') == Record("a")
