"""What counts one thing is a sentence about one, and what could not be seen is not called a failure."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest

from console.commands import dead_letters, quarantine
from console.dead_letters import waiting_redrive
from console.dead_letters.of_call import OfCall
from console.dead_letters.prospects import Prospects, in_words
from console.dead_letters.quarantine import (
    QuarantineFilter,
    QuarantineRedrive,
    QuarantineResult,
    WhyNot,
    _why_not,
)
from console.dead_letters.queue import DeadLetterQueue, Filter, QueuedDeadLetter
from console.dead_letters.redrive_or_drop import Settled
from console.dead_letters.waiting_redrive import Returned, _Followed
from shared.amqp.echo import EchoQueue
from shared.amqp.topology import ECHO_ID
from shared.config.settings import Settings
from shared.config.sources import load_sources
from shared.domain.quarantined import QuarantinedCallback
from tests.helpers.pace import LIMIT_S


class _Echoes:
    """The queue of the echoes to one redrive, which each connection has anew."""

    def __init__(self) -> None:
        self.name: str | None = "echoes.1"
        self.arrived = asyncio.Queue[Mock]()

    async def get(self) -> Mock:
        return await self.arrived.get()


def _dead_letters(count: int) -> list[QueuedDeadLetter]:
    return [Mock(delivery=Mock(body=b'[{"v":1}]')) for _ in range(count)]


@pytest.mark.parametrize("later", [None, "echoes.2"])
async def test_what_no_echo_can_report_is_unknown_and_not_waited_for(later: str | None) -> None:
    echoes: Any = _Echoes()
    followed = _Followed(echoes)
    echoes.name = None
    assert followed.headers_of(_dead_letters(3)) == {}
    echoes.name = "echoes.1"
    reported = followed.headers_of(_dead_letters(4))
    followed.headers_of(_dead_letters(5))
    running = asyncio.create_task(followed.run())
    echoes.arrived.put_nowait(Mock(headers={ECHO_ID: reported[ECHO_ID]}, ack=AsyncMock()))
    waiting = asyncio.create_task(followed.wait(1000 * LIMIT_S))
    while followed.not_folded != 5:
        await asyncio.sleep(0)
    echoes.name = later
    async with asyncio.timeout(LIMIT_S):
        await waiting
    running.cancel()
    assert (followed.not_folded, followed.unknown) == (0, 8)


async def test_the_wait_ends_in_time_if_no_echo_arrives() -> None:
    echoes: Any = Mock(spec=EchoQueue)
    echoes.name = "echoes.1"
    followed = _Followed(echoes)
    followed.headers_of(_dead_letters(2))
    await followed.wait(0.01)
    assert (followed.not_folded, followed.unknown) == (2, 0)


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (Returned(), "None came back."),
        (Returned(not_folded=1), "None came back. 1 was not reported as folded within 15 s: check the workers."),
        (Returned(not_folded=2), "None came back. 2 were not reported as folded within 15 s: check the workers."),
        (Returned(unknown=1), "None came back. Whether 1 was folded is unknown: the connection for the reports was lost."),
        (Returned(Counter(a=2, b=1, c=1, d=1), unknown=2), "5 came back: 2 a; 1 b; 1 c; 1 for another reason. Whether 2 were"),
    ],
)
def test_what_came_back_is_said_of_one_or_of_several(monkeypatch: pytest.MonkeyPatch, returned: Returned, said: str) -> None:
    monkeypatch.setattr(waiting_redrive, "WAIT_S", 15.0)
    assert dead_letters._came_back(returned).startswith(said)


@pytest.mark.parametrize(
    ("coming_back", "total", "said"),
    [
        (1, 1, "It cannot be understood as it is, and would be a dead letter again."),
        (1, 3, "1 of 3 cannot be understood as it is, and would be a dead letter again."),
        (2, 3, "2 of 3 cannot be understood as they are, and would be dead letters again."),
    ],
)
def test_what_would_come_back_is_said_of_one_or_of_several(coming_back: int, total: int, said: str) -> None:
    prospects = Prospects(Settled(total, 0), Counter({"a": coming_back}))
    assert dead_letters._coming_back(prospects, dead_letters.Manner()).startswith(said)


@pytest.mark.parametrize(("skipped", "said"), [(1, "may no longer have its call,"), (2, "may no longer have their calls,")])
async def test_what_is_not_redriven_is_said_of_one_or_of_several(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], skipped: int, said: str
) -> None:
    monkeypatch.setattr(dead_letters, "foresee", AsyncMock(return_value=Prospects(Settled(0, skipped), Counter())))
    manner = dead_letters.Manner()
    settings = Settings()
    await dead_letters.redrive(settings, DeadLetterQueue.CALLBACKS, Filter(), dry_run=True, as_json=False, manner=manner)
    assert said in capsys.readouterr().err


def test_other_reasons_are_counted() -> None:
    assert in_words(Counter(a=5, b=4, c=3, d=1))[-1] == "1 for another reason"
    assert in_words(Counter(a=5, b=4, c=3, d=1, e=1))[-1] == "2 for other reasons"
    letters = [Mock(reason="invalid_callback", detail=detail, id="1234") for detail in "ab"]
    assert ", and 1 other reason." in OfCall(letters).in_words()


async def test_why_a_quarantined_callback_is_not_redriven_is_said_of_one_or_of_several(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    skipped = {WhyNot("was redriven before", "were redriven before"): 1, WhyNot("is so old", "are so old"): 2}
    monkeypatch.setattr(quarantine, "redrive_quarantined", AsyncMock(return_value=QuarantineResult(3, skipped)))
    for as_json in (False, True):
        await quarantine.redrive(Settings(), QuarantineFilter(), None, unverified=False, dry_run=False, as_json=as_json)
    captured = capsys.readouterr()
    assert captured.err == "2 not redriven: they are so old.\n1 not redriven: it was redriven before.\n"
    assert '"skipped":{"were redriven before":1,"are so old":2}' in captured.out


def test_each_reason_has_the_words_for_one_and_for_several() -> None:
    sources = load_sources(None)
    callback = QuarantinedCallback("1", "wrong_secret", "default", "192.0.2.1", "2026-11-23T07:44:00.000000Z", "")
    request = QuarantineRedrive("me")
    reasons = [
        _why_not(callback, request, {}),
        _why_not(callback, QuarantineRedrive("me", oldest="2027"), sources),
        _why_not(callback, request, sources),
    ]
    for why in reasons:
        assert why is not None
        assert why.one.split()[0] in {"is", "was", "did", "cannot"}
        assert why.one != why.several
