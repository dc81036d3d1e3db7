"""Secrets and sources change under the requests of ingress: none is refused that was right when it arrived."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest
from prometheus_client import REGISTRY

from ingress.callbacks import CallbackHandler
from ingress.fair_shares import TICK_S, FairShares, Load, Route
from ingress.group_commit import GroupCommit
from ingress.intake import Intake
from ingress.live_handler import LiveHandler
from ingress.outgoing_message import OutgoingMessage
from ingress.probes import Probes
from ingress.server import serving
from ingress.waiting import Waiting
from shared.config.live_sources import LiveSources
from shared.domain.ids import SourceName
from shared.domain.raw_event import CallbackEvent, decode, join
from shared.domain.unread_body import readable
from shared.runtime.process import background
from tests.helpers.intake import counted, published_at_once
from tests.helpers.raw_http import Connection, connected_to, get, post
from tests.helpers.site import PATIENT

OLD, NEW = "hunter2-of-before", "hunter3-of-now"
LINE = "CallType=API&Event=pickup&CallID=77&RequestID=513"
BEFORE = f'[sources.acme]\nsecret = "{OLD}"\n'
BOTH = f'[sources.acme]\nsecret = "{NEW}"\nprevious_secrets = ["{OLD}"]\n'
AFTER = f'[sources.acme]\nsecret = "{NEW}"\n'


@dataclass(slots=True)
class _Ingress:
    """An ingress whose sources can be changed, and what it has kept."""

    path: Path
    sources: LiveSources
    connection: Connection | None = None
    bodies: list[bytes] = field(default_factory=list)
    dead_letters: list[OutgoingMessage] = field(default_factory=list)

    async def change(self, text: str) -> None:
        self.path.write_text(text)
        await self.sources.refresh()

    async def write(self, events: Sequence[bytes]) -> None:
        self.bodies.extend(events)

    async def send(self, message: OutgoingMessage) -> None:
        self.dead_letters.append(message)

    def events(self) -> list[CallbackEvent]:
        return [event for event in decode(join(self.bodies)) if isinstance(event, CallbackEvent)]

    async def status(self, request: bytes) -> int:
        assert self.connection is not None
        await self.connection.send(request)
        return await self.connection.status()

    async def statuses(self, *secrets: str) -> list[int]:
        return [await self.status(get(f"/callbacks/acme?token={secret}&{LINE}")) for secret in secrets]


@asynccontextmanager
async def _ingress(directory: Path, text: str) -> AsyncIterator[_Ingress]:
    path = directory / "sources.toml"
    path.write_text(text)
    here = _Ingress(path, LiveSources.load(path))
    commit, refusals = GroupCommit(here.write), counted()
    intake = published_at_once(here.sources.current, commit)
    handlers = here.sources.derive(lambda sources: CallbackHandler(sources, intake, here.send, refusals))
    serves = serving(LiveHandler(handlers), "127.0.0.1", 0, shutdown_timeout_s=10, max_connections=16, limits=PATIENT)
    async with background(commit.run()), serves as port, connected_to(port) as here.connection:
        yield here


def _used(which: str) -> float:
    return REGISTRY.get_sample_value("callfold_callback_secrets_total", {"source": "acme", "which": which}) or 0.0


async def test_a_previous_secret_is_accepted_counted_apart_and_gets_401_once_removed(tmp_path: Path) -> None:
    async with _ingress(tmp_path, BEFORE) as here:
        assert await here.statuses(OLD, NEW) == [200, 401]
        await here.change(BOTH)
        current, previous = _used("current"), _used("previous")
        assert await here.statuses(OLD, NEW, OLD, "hunter4") == [200, 200, 200, 401]
        assert (_used("current"), _used("previous")) == (current + 1, previous + 2)
        assert [event.has_previous_secret for event in here.events()] == [False, True, False, True]
        await here.change(AFTER)
        assert await here.statuses(OLD, NEW) == [401, 200]
    assert OLD.encode() not in b"".join(here.bodies)


@pytest.mark.parametrize(
    "request_",
    [
        post("/callbacks/acme", body=f"token={OLD}&{LINE}".encode()),
        post("/callbacks/acme", body=f"{LINE}&token={OLD}".encode()),
        post(f"/callbacks/acme?token={OLD}", body=LINE.encode()),
        get(f"/callbacks/acme?token=%22{OLD}%22&{LINE}"),
        get(f"/callbacks/acme?token={OLD}&{LINE}&again={OLD}&x={'y' * 1100}"),
    ],
    ids=["in a form", "last in a form", "in the query of a form", "with quotes", "in a long query, twice"],
)
async def test_a_previous_secret_is_right_wherever_the_current_one_is_and_in_nothing_that_is_kept(
    tmp_path: Path, request_: bytes
) -> None:
    async with _ingress(tmp_path, BOTH) as here:
        assert await here.status(request_) == 200
        assert [event.has_previous_secret for event in here.events()] == [True]
        assert OLD.encode() not in b"".join(here.bodies)


async def test_a_body_that_cannot_be_read_is_kept_without_the_previous_secret_in_it(tmp_path: Path) -> None:
    async with _ingress(tmp_path, BOTH) as here:
        assert await here.status(post("/callbacks/acme", body=b'{"token": "%s", "CallID": ' % OLD.encode())) == 400
        (dead,) = here.dead_letters
        assert OLD.encode() not in readable(dead.body)
        assert b"***" in readable(dead.body)


async def test_sources_are_added_and_removed_while_ingress_runs(tmp_path: Path) -> None:
    other = get(f"/callbacks/other?token={NEW}&{LINE}")
    async with _ingress(tmp_path, BEFORE) as here:
        assert await here.status(other) == 404
        await here.change(f'{BEFORE}[sources.other]\nsecret = "{NEW}"\n')
        assert await here.status(other) == 200
        await here.change(f'[sources.other]\nsecret = "{NEW}"\n')
        assert await here.statuses(OLD) == [404]
        await here.change("[sources.other")
        assert await here.status(other) == 200


async def test_a_request_that_has_begun_keeps_its_sources(tmp_path: Path) -> None:
    whole = post(f"/callbacks/acme?token={OLD}", body=LINE.encode())
    async with _ingress(tmp_path, BEFORE) as here:
        connection = here.connection
        assert connection is not None
        await connection.send(whole[:-10], b"")
        await here.change(f'[sources.other]\nsecret = "{NEW}"\n')
        await connection.send(whole[-10:])
        assert await connection.status() == 200
        assert [event.source for event in here.events()] == ["acme"]


def test_shares_follow_the_sources_and_those_that_stay_keep_their_state() -> None:
    acme, gone, new = map(SourceName, ("acme", "gone", "new"))
    shares = FairShares([acme, gone], bytes_per_day=1000, max_waiting_bytes=1 << 20)
    shares.of(acme).take(2000)
    shares.update(TICK_S, Load())
    assert shares.of(acme).route is Route.OVER_DAY
    assert shares.follow([acme, new]) == [gone]
    assert [shares.of(name).route for name in (acme, gone, new)] == [Route.OVER_DAY, Route.PUBLISH, Route.PUBLISH]
    shares.of(gone).take(2000)
    assert shares.update(TICK_S, Load()) == {}
    assert shares.follow([acme, new]) == []


def test_the_intake_reports_no_more_on_a_source_that_is_removed() -> None:
    acme, gone = map(SourceName, ("acme", "gone"))
    shares = FairShares([acme, gone], bytes_per_day=1000, max_waiting_bytes=1 << 20)
    intake = Intake(shares, cast("GroupCommit", None), cast("Waiting", None), cast("Probes", None))
    for name in (acme, gone):
        shares.of(name).take(2000)
    for name, route in shares.update(TICK_S, Load()).items():
        intake._report(name, route)
    assert len(intake.problems()) == 2
    intake._follow([acme])
    (problem,) = intake.problems()
    assert "acme" in problem
    assert intake.refusal(gone) is None
