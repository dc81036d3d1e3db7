"""`callfold doctor`: can this configuration work? Each check says what it found, and what to do where it cannot."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

import orjson
from rich.markup import escape
from rich.table import Table

from console.commands.hints import advised
from console.commands.output import counted, output
from console.commands.pbx_checks import DoubtError, dial_links, recording_origins
from console.history.store import History
from ingress.spool import Spool
from shared.amqp.server_check import check_server
from shared.archive.storage import Archive
from shared.config.settings import LOOPBACK, Settings
from shared.errors import CallfoldError, ConfigError
from shared.runtime.broker import broker_address
from shared.runtime.store import open_store
from worker.download.download_directory import check_directory

_OLDEST_RABBITMQ = (3, 10)
_OLDEST_REDIS = (7, 0)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found: `ok` with a `warning` where it may work, and does not look so from here."""

    check: str
    ok: bool
    detail: str
    warning: bool = False


Check = Callable[[Settings], Awaitable[str]]


async def doctor(settings: Settings, *, as_json: bool) -> int:
    """Run every check and print the findings; returns 1 if one failed."""
    checks = CHECKS | ({"history": _history} if settings.history_url else {})
    findings = [await find(name, check, settings) for name, check in checks.items()]
    if as_json:
        for finding in findings:
            sys.stdout.write(orjson.dumps(finding).decode() + "\n")
    else:
        table = Table("check", "", "found", box=None)
        for finding in findings:
            table.add_row(finding.check, _verdict(finding), escape(finding.detail))
        output().print(table)
    return 0 if all(finding.ok for finding in findings) else 1


async def find(name: str, check: Check, settings: Settings) -> Finding:
    """Run one check."""
    try:
        return Finding(name, ok=True, detail=await check(settings))
    except DoubtError as doubt:
        return Finding(name, ok=True, detail=str(doubt), warning=True)
    except CallfoldError as error:
        return Finding(name, ok=False, detail=advised(error, in_doctor=True))


def _verdict(finding: Finding) -> str:
    if not finding.ok:
        return "[red]failed[/]"
    return "[yellow]warning[/]" if finding.warning else "[green]ok[/]"


async def _rabbitmq(settings: Settings) -> str:
    found = await check_server(broker_address(settings, "doctor"))
    if _numbers(found.version) < _OLDEST_RABBITMQ:
        raise ConfigError(f"RabbitMQ {found.version} at {found.location} is too old: 3.10 or later is needed.")
    return (
        f"RabbitMQ {found.version} at {found.location}; "
        "quorum queues, streams and at-least-once dead-lettering declared; no plugin is needed"
    )


async def _redis(settings: Settings) -> str:
    async with open_store(settings) as store:
        told = await store.server_settings()
    if _numbers(told["version"]) < _OLDEST_REDIS:
        raise ConfigError(f"Redis {told['version']} is too old: 7.0 or later is needed.")
    if told.get("maxmemory-policy") != "noeviction":
        policy = told.get("maxmemory-policy")
        raise ConfigError(f"Redis may evict calls: set maxmemory-policy to noeviction (it is {policy}).")
    if told.get("appendonly") != "yes":
        raise ConfigError("Redis keeps nothing over a restart: set appendonly to yes.")
    if told.get("appendfsync") != "always":
        raise ConfigError(f"Redis can lose the last second: set appendfsync to always (it is {told.get('appendfsync')}).")
    return f"Redis {told['version']}; AOF with fsync always, noeviction"


async def _archive(settings: Settings) -> str:
    await Archive(settings.archive_url).check()
    return f"{settings.archive_url} can be written"


async def _spool(settings: Settings) -> str:
    async with Spool(settings.spool_dir, max_bytes=settings.spool_max_bytes) as spool:
        await spool.check()
        waiting = await spool.count()
    return f"{settings.spool_dir} can be written; {counted(waiting, 'message')} in it"


async def _downloads(settings: Settings) -> str:
    check_directory(settings.recording_dir)
    return f"{settings.recording_dir} can be written"


async def _sources(settings: Settings) -> str:
    sources = settings.load_sources()
    for source in sources.values():
        if source.secret is None and settings.ingress_host not in LOOPBACK:
            raise ConfigError(f"Source {source.name} has no secret, and ingress listens on {settings.ingress_host}.")
    unfetched = [name for name, source in sources.items() if source.recording_origin is None]
    more = f"; without recording links: {', '.join(unfetched)}" if unfetched else ""
    return f"{', '.join(sources)}{more}"


async def _history(settings: Settings) -> str:
    if settings.history_url is None:
        return "none"
    async with aclosing(History(settings.history_url.get_secret_value())) as history:
        await history.check()
        return f"{history.name} can be read"


CHECKS: dict[str, Check] = {
    "sources": _sources,
    "recording origins": recording_origins,
    "dial links": dial_links,
    "rabbitmq": _rabbitmq,
    "redis": _redis,
    "archive": _archive,
    "spool": _spool,
    "downloads": _downloads,
}


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
