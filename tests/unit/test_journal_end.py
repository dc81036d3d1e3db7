"""The end of a journal is that of the server that has most of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import pytest

from shared.amqp.consumer import Consumer
from shared.config.settings import load_settings
from shared.errors import CallfoldError
from shared.streams import journal

ONE, THREE = "amqp://a/", "amqp://a/,amqp://b/,amqp://c/"


class _Reader:
    """A consumer whose server has more of the stream each time it is asked."""

    queue = "calls.journal"

    def __init__(self, ends: Sequence[int | None]) -> None:
        self._ends: Iterator[int | None] = iter(ends)
        self._last: int | None = None

    async def stream_end(self) -> int | None:
        self._last = next(self._ends, self._last)
        return self._last


async def _end(monkeypatch: pytest.MonkeyPatch, urls: str, ends: Sequence[int | None], latest: int | None) -> int | None:
    async def latest_end(asked: Sequence[str], stream: str) -> int | None:
        assert (",".join(asked), stream) == (urls, "calls.journal")
        return latest

    monkeypatch.setattr(journal, "latest_end", latest_end)
    monkeypatch.setattr(journal, "_RETRY_S", 0)
    monkeypatch.setenv("CALLFOLD_AMQP_URL", urls)
    return await journal._common_end(load_settings(), cast("Consumer", _Reader(ends)))


@pytest.mark.parametrize(
    ("urls", "ends", "latest", "expected"),
    [
        (THREE, [4], 4, 4),
        (THREE, [None], None, None),
        (THREE, [4, 4, 6, 9], 9, 9),
        (THREE, [None, None, 0], 0, 0),
        (THREE, [5], 4, 5),
        (THREE, [5], None, 5),
        (ONE, [4, 9], 9, 4),
    ],
)
async def test_a_reader_waits_until_its_server_has_what_another_one_has(
    monkeypatch: pytest.MonkeyPatch, urls: str, ends: Sequence[int | None], latest: int | None, expected: int | None
) -> None:
    assert await _end(monkeypatch, urls, ends, latest) == expected


async def test_a_server_that_stays_behind_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "_SILENCE_S", 0.2)
    with pytest.raises(CallfoldError, match=r"^calls\.journal could not be read to its end: for 0.2 s, one server"):
        await _end(monkeypatch, THREE, [4], 9)
