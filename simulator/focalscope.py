"""A simulated FocalScope: it dials, sends each callback once through the adapter link, and serves recordings."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import aiohttp
from aiohttp import web

from shared.config.links import origin
from shared.domain.adapter_link import parse_link
from shared.errors import CallfoldError
from shared.log import get_logger
from simulator.faults import Faults, inject_faults
from simulator.recordings import LOGIN_PAGE, Recordings
from simulator.scenario import Dialed, Scenario, Step, Truth, play

log = get_logger(__name__)

_CALLBACK_TIMEOUT_S = 10
_MIX: Mapping[Scenario, float] = {
    Scenario.ANSWERED: 5,
    Scenario.AGENT_MISSED: 2,
    Scenario.DIALED_MISSED: 2,
    Scenario.AGENT_HANGS_UP_FIRST: 2,
}


@dataclass(frozen=True, slots=True)
class Plan:
    """The behaviour of a simulated FocalScope.

    Attributes:
        adapter: the adapter link, as in a real FocalScope.
        ingress_urls: ingresses that get the callbacks in turn; if empty, the origin of the link.
        speed: factor by which calls are faster than real time.
        recording_delay_s: time from the end of a call until its recording is ready.
    """

    adapter: str
    ingress_urls: Sequence[str] = ()
    seed: int = 1
    speed: float = 20.0
    faults: Faults = field(default_factory=Faults)
    recorded_share: float = 0.7
    recording_delay_s: float = 0.5
    first_request_id: int = 1000
    first_call_id: int = 1000000090000
    host: str = "127.0.0.1"
    port: int = 0


class _CallbackLostError(CallfoldError):
    """A callback got no response."""


async def _without_retry(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Keep aiohttp from repeating a GET after a broken connection. A real FocalScope never repeats a callback."""
    try:
        return await handler(request)
    except aiohttp.ClientError as error:
        raise _CallbackLostError(type(error).__name__) from error


class FocalScope:
    """`async with FocalScope(plan) as pbx` runs its HTTP server. `truths` holds the expected record of every call."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._rng = random.Random(plan.seed)  # noqa: S311 - repeatable on purpose
        self._request_ids = itertools.count(plan.first_request_id)
        self._call_ids = itertools.count(plan.first_call_id, 2)
        self._ingresses = itertools.cycle(plan.ingress_urls or [origin(plan.adapter)])
        self._calls: set[asyncio.Task[None]] = set()
        self._closing = AsyncExitStack()
        self._session: aiohttp.ClientSession | None = None
        self._rejected: asyncio.Future[int] | None = None
        self.recordings = Recordings()
        self.truths: dict[int, Truth] = {}
        self.counters: Counter[str] = Counter()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://{self._plan.host}:{self.port}"

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as closing:
            timeout = aiohttp.ClientTimeout(total=_CALLBACK_TIMEOUT_S)
            connector = aiohttp.TCPConnector(limit=200)
            session = aiohttp.ClientSession(timeout=timeout, connector=connector, middlewares=(_without_retry,))
            self._session = await closing.enter_async_context(session)
            closing.push_async_callback(self._stop_calls)
            app = web.Application()
            app.add_routes([web.get("/dial", self._on_dial), web.get("/_cros_/master/", self.recordings.serve)])
            runner = web.AppRunner(app, access_log=None)
            await runner.setup()
            closing.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, self._plan.host, self._plan.port).start()
            self.port = runner.addresses[0][1]
            self._closing = closing.pop_all()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._closing.aclose()

    async def _stop_calls(self) -> None:
        for task in self._calls:
            task.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)

    async def run(self, calls: int, *, per_second: float) -> None:
        """Dial calls through the dial endpoint at an even rate; returns when every callback was sent."""
        started = time.monotonic()
        for number in range(calls):
            await asyncio.sleep(max(0.0, started + number / per_second - time.monotonic()))
            await self.dial(f"100{number % 4 + 1}", f"+45{30000000 + number}")
        await self.finished()

    async def finished(self) -> None:
        """Wait until every callback was sent."""
        while self._calls:
            await asyncio.wait(self._calls)

    async def dial(self, agent: str, number: str) -> int:
        """Dial through the HTTP endpoint and return the RequestID."""
        if self._session is None:
            raise RuntimeError("the simulator is not running")
        async with self._session.get(f"{self.url}/dial?{urlencode({'agent': agent, 'number': number})}") as response:
            text = await response.text()
        return int(text.strip("{}").partition(":")[2])

    async def _on_dial(self, request: web.Request) -> web.Response:
        agent, number = request.query.get("agent", ""), request.query.get("number", "")
        if not agent or not number:
            return web.Response(text=LOGIN_PAGE, content_type="text/html")
        return web.Response(text=f"{{RequestID:{self._start(agent, number)}}}", content_type="text/html")

    def _start(self, agent: str, number: str) -> int:
        scenario = self._rng.choices(list(_MIX), weights=list(_MIX.values()))[0]
        dialed = Dialed(
            request_id=next(self._request_ids),
            first_call_id=next(self._call_ids),
            agent=agent,
            number=number,
            at_ms=time.time_ns() // 1_000_000,
            recorded=self._rng.random() < self._plan.recorded_share,
        )
        truth, steps = play(scenario, dialed, self._rng, speed=self._plan.speed)
        sent, dropped = inject_faults(steps, self._plan.faults, self._rng)
        self.truths[truth.request_id] = replace(truth, dropped=dropped)
        self._add_recordings(truth, over_s=max(step.at_s for step in steps))
        task = asyncio.get_running_loop().create_task(self._send_callbacks(sent))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        return truth.request_id

    def _add_recordings(self, truth: Truth, *, over_s: float) -> None:
        for leg in truth.legs:
            if leg.recorded:
                self.recordings.add(leg.call_id, leg.talk_seconds, ready_in_s=over_s + self._plan.recording_delay_s)

    async def _send_callbacks(self, steps: list[Step]) -> None:
        started = time.monotonic()
        for step in steps:
            await asyncio.sleep(max(0.0, started + step.at_s - time.monotonic()))
            await self._send_callback(f"{next(self._ingresses)}{self._target(step.values)}")

    def _target(self, values: Mapping[str, str]) -> str:
        """Fill the placeholders of the adapter link with the values of one callback."""
        parts = urlsplit(self._plan.adapter)
        meanings = parse_link(self._plan.adapter).meanings
        pairs = [
            f"{quote(name)}={quote(values.get(meanings[name], '') if name in meanings else constant, safe='')}"
            for name, constant in parse_qsl(parts.query, keep_blank_values=True)
        ]
        return f"{parts.path}?{'&'.join(pairs)}"

    @property
    def rejected(self) -> asyncio.Future[int]:
        """The status of the first callback that got a 4xx response, so it can never be accepted."""
        if self._rejected is None:
            self._rejected = asyncio.get_running_loop().create_future()
        return self._rejected

    async def _send_callback(self, url: str) -> None:
        if self._session is None:
            raise RuntimeError("the simulator is not running")
        try:
            async with self._session.get(url) as response:
                await response.read()
                self.counters[str(response.status)] += 1
                if 400 <= response.status < 500 and not self.rejected.done():  # noqa: PLR2004 - client errors
                    self.rejected.set_result(response.status)
        except (_CallbackLostError, aiohttp.ClientError, TimeoutError) as error:
            # A real FocalScope does not retry either, so the callback is lost.
            self.counters["lost"] += 1
            log.warning("callback_lost", error=str(error) or type(error).__name__)
