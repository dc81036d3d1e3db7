"""Checks of `callfold doctor`. Each reports what it found and, if it failed, what to do."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

import orjson
from rich.markup import escape
from rich.table import Table

from console.commands.broker_checks import policies, rabbitmq
from console.commands.doubt import DoubtError
from console.commands.hints import with_hint
from console.commands.output import output
from console.commands.pbx_checks import dial_links, recording_origins
from console.commands.redis_checks import redis_finding
from console.commands.spool_check import check_spool
from console.counts import counted
from console.dead_letters.listing import LookRequest, find
from console.dead_letters.queue import DeadLetterQueue, Filter
from console.history.store import History
from console.ignored_values import find_unreplaced
from console.pbx_clocks import find_pbx_clock_problems
from console.pbx_watch import read_pbx_findings
from console.previous_secrets import describe, is_in_use, read_last_uses
from console.rebuilds import describe_rebuild
from console.refusals import count_refusals
from console.request_ids import find_request_id_problems
from shared.archive.storage import Archive
from shared.config.secret_strength import check_console_keys, check_source_secrets, weak_secrets
from shared.config.settings import Settings
from shared.errors import BrokerAccessError, CallfoldError, ConfigError, StoreUnavailableError
from shared.runtime.store import open_store
from shared.runtime.store_watch import clock_problem
from shared.state.redis_url import parse_redis_url
from shared.state.store import Store
from shared.streams.errors import NotPermittedError
from worker.download.download_directory import check_directory

_REFUSALS_SHOWN = 5
_READING_S = 5
_CONNECT_S = 4  # less, so that the reason is known if the user may not read

_Read = TypeVar("_Read")


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `ok` with a `warning`: it works or may work, but not well or not from this machine."""

    check: str
    ok: bool
    detail: str
    warning: bool = False


Check = Callable[[Settings], Awaitable[str]]


async def doctor(settings: Settings, *, as_json: bool) -> int:
    """Run every check and print the findings; returns 1 if one failed."""
    checks = CHECKS | ({"history": _history} if settings.history_url else {})
    findings = without_repeats([await run_check(name, check, settings) for name, check in checks.items()])
    if as_json:
        for finding in findings:
            sys.stdout.write(orjson.dumps(finding).decode() + "\n")
    else:
        table = Table("check", "", "found", box=None)
        for finding in findings:
            table.add_row(finding.check, _verdict(finding), escape(finding.detail))
        output().print(table)
    return 0 if all(finding.ok for finding in findings) else 1


async def run_check(name: str, check: Check, settings: Settings) -> Finding:
    try:
        return Finding(name, ok=True, detail=await check(settings))
    except DoubtError as doubt:
        return Finding(name, ok=True, detail=str(doubt), warning=True)
    except CallfoldError as error:
        return Finding(name, ok=False, detail=with_hint(error, in_doctor=True))


def without_repeats(findings: Sequence[Finding]) -> list[Finding]:
    """Shorten findings that only repeat an earlier one: a broken sources file or a server that is away fails several checks."""
    first: dict[str, str] = {}
    for finding in findings:
        if not finding.ok:
            first.setdefault(finding.detail, finding.check)
    return [
        replace(each, detail=f"not checked: see {first[each.detail]}")
        if first.get(each.detail, each.check) != each.check
        else each
        for each in findings
    ]


def _verdict(finding: Finding) -> str:
    if not finding.ok:
        return "[red]failed[/]"
    return "[yellow]warning[/]" if finding.warning else "[green]ok[/]"


async def _redis(settings: Settings) -> str:
    async with open_store(settings) as store:
        await store.check()
        nodes = await store.server_settings()
        await store.verify()
    return redis_finding(parse_redis_url(settings.redis_url.get_secret_value()).kind, nodes, store.handicaps)


async def _lost_state(settings: Settings) -> str:
    async with _open_store(settings) as store:
        if sentence := await describe_rebuild(store):
            raise DoubtError(sentence)
    return "no partition of Redis waits for a rebuild"


async def _clock(settings: Settings) -> str:
    async with open_store(settings) as store:
        await store.now()
        offset_s = store.clock.offset_s
    if offset_s is None:
        raise DoubtError("Redis answers too slowly to compare the clocks")
    if problem := clock_problem(offset_s):
        raise DoubtError(f"{problem} They differ by {abs(offset_s):.1f} s.")
    return "agrees with that of Redis"


async def _archive(settings: Settings) -> str:
    await Archive(settings.archive_url).check()
    return f"{settings.archive_url} is writable"


async def _downloads(settings: Settings) -> str:
    check_directory(settings.recording_dir)
    return f"{settings.recording_dir} is writable"


async def _sources(settings: Settings) -> str:
    sources = settings.load_sources()
    if misdirected := [
        f"The adapter link of {name} sends to {source.adapter.source}"
        for name, source in sources.items()
        if source.adapter.source not in {None, name}
    ]:
        raise DoubtError(f"{'. '.join(misdirected)}. Its path must end with /callbacks/<name of the source>.")
    without_links = [name for name, source in sources.items() if source.recording_origin is None]
    suffix = f" (without recording links: {', '.join(without_links)})" if without_links else ""
    return f"{', '.join(sources)}{suffix}"


async def _secrets(settings: Settings) -> str:
    sources = settings.load_sources()
    check_source_secrets(settings, sources)
    check_console_keys(settings)
    if weak := weak_secrets(settings, sources):  # on loopback they may be, but a proxy can publish that port
        raise DoubtError(" ".join(weak))
    without = ", ".join(name for name, source in sources.items() if source.secret is None)
    return f"none is weak (not set, so on loopback only: {without})" if without else "none is weak"


@asynccontextmanager
async def _open_store(settings: Settings) -> AsyncIterator[Store]:
    """Open the store of a check that knows nothing without Redis, whose absence another check reports."""
    async with open_store(settings) as store:
        try:
            yield store
        except StoreUnavailableError:
            raise DoubtError("not known while Redis is unavailable") from None


async def _request_ids(settings: Settings) -> str:
    async with _open_store(settings) as store:
        problems = await find_request_id_problems(store, settings.load_sources())
    if problems:
        raise ConfigError(" ".join(problem.detail for problem in problems))
    return "no call had too many legs in the last day"


async def _pbx_clocks(settings: Settings) -> str:
    sources = settings.load_sources()
    async with _open_store(settings) as store:
        notes = await store.pbx_clocks.of(sources)
        problems = await find_pbx_clock_problems(store, sources)
    if problems:
        raise DoubtError(" ".join(problems))
    if not notes:
        return "not known: no source sent timestamps in the last day"
    return ", ".join(f"{source} {note.ahead_s:+.1f} s" for source, note in notes.items())


async def _pbx(settings: Settings) -> str:
    async with _open_store(settings) as store:
        findings = await read_pbx_findings(store, settings.load_sources())
    if findings.conditions:
        raise DoubtError(" ".join(condition.sentence for condition in findings.conditions))
    return " ".join(findings.sentences)


async def _previous_secrets(settings: Settings) -> str:
    async with _open_store(settings) as store:
        uses = await read_last_uses(store, settings.load_sources())
    sentences = " ".join(describe(name, at) for name, at in uses.items())
    if any(at is not None and is_in_use(at) for at in uses.values()):
        raise DoubtError(sentences)
    return sentences or "no source has any"


async def _placeholders(settings: Settings) -> str:
    async with _open_store(settings) as store:
        problems = await find_unreplaced(store, settings.load_sources())
    if problems:  # nothing is lost but these values
        raise DoubtError(" ".join(problem.detail for problem in problems))
    return "none arrived unreplaced in the last day"


async def _from_rabbitmq(reading: Awaitable[_Read]) -> _Read:
    """Return what a check reads from RabbitMQ, whose absence another check reports."""
    problem = ""
    try:
        async with asyncio.timeout(_READING_S):
            return await reading
    except* (BrokerAccessError, NotPermittedError):
        problem = "not known: the user of CALLFOLD_AMQP_URL may not read it. Run `callfold doctor` as callfold-console"
    except* (CallfoldError, TimeoutError):
        problem = problem or "not known while RabbitMQ cannot be read"
    raise DoubtError(problem)


async def _refusals(settings: Settings) -> str:
    totals = await _from_rabbitmq(count_refusals(settings, connect_s=_CONNECT_S))
    if totals.has_callbacks():  # they need not be those of a PBX
        raise DoubtError(" ".join(totals.sentences()[:_REFUSALS_SHOWN]))
    if not totals.count():
        return "none in the last day"
    return f"{counted(totals.count(), 'request')} in the last day, none for a configured source (see `callfold quarantine list`)"


async def _dead_letters(settings: Settings) -> str:
    look = LookRequest(Filter(), at_most=1, with_body=False)
    counts = {queue: (await _from_rabbitmq(find(settings, queue, look))).total for queue in DeadLetterQueue}
    if waiting := [f"{counted(count, 'message')} in {queue.queue_name}" for queue, count in counts.items() if count]:
        raise DoubtError(
            f"{' and '.join(waiting)}. `callfold dead-letters list` shows callbacks, with --queue recordings the others."
        )
    return "none"


async def _history(settings: Settings) -> str:
    if settings.history_url is None:
        return "none"
    async with aclosing(History(settings.history_url.get_secret_value())) as history:
        await history.check()
        return f"{history.name} is readable"


CHECKS: dict[str, Check] = {
    "sources": _sources,
    "secrets": _secrets,
    "recording origins": recording_origins,
    "dial links": dial_links,
    "rabbitmq": rabbitmq,
    "policies": policies,
    "dead letters": _dead_letters,
    "redis": _redis,
    "lost state": _lost_state,
    "request ids": _request_ids,
    "previous secrets": _previous_secrets,
    "placeholders": _placeholders,
    "refusals": _refusals,
    "clock": _clock,
    "pbx clocks": _pbx_clocks,
    "pbx": _pbx,
    "archive": _archive,
    "spool": check_spool,
    "downloads": _downloads,
}
