"""`callfold doctor`: can this configuration work? Each check says what it found, and what to do where it cannot."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

import orjson
from rich.console import Console
from rich.table import Table

from ingress.spool import Spool
from shared.broker import BrokerAddress, inspect
from shared.errors import CallfoldError, ConfigError
from shared.process import instance_name
from shared.settings import LOOPBACK, Settings
from shared.store import Store
from shared.topology import topology
from worker.archive import Archive

_OLDEST_RABBITMQ = (3, 10)
_OLDEST_REDIS = (7, 0)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    check: str
    ok: bool
    detail: str


Check = Callable[[Settings], Awaitable[str]]


async def doctor(settings: Settings, *, as_json: bool) -> int:
    """Run every check and print the findings; returns 1 if one failed."""
    findings = [await _find(name, check, settings) for name, check in CHECKS.items()]
    if as_json:
        for finding in findings:
            sys.stdout.write(orjson.dumps(finding).decode() + "\n")
    else:
        table = Table("check", "", "found", box=None)
        for finding in findings:
            table.add_row(finding.check, "[green]ok[/]" if finding.ok else "[red]failed[/]", finding.detail)
        Console().print(table)
    return 0 if all(finding.ok for finding in findings) else 1


async def _find(name: str, check: Check, settings: Settings) -> Finding:
    try:
        return Finding(name, ok=True, detail=await check(settings))
    except CallfoldError as error:
        return Finding(name, ok=False, detail=str(error))


async def _rabbitmq(settings: Settings) -> str:
    wanted = topology(settings.recording_retry_seconds)
    version = await inspect(BrokerAddress(settings.amqp_urls, wanted, instance_name("doctor")))
    if _numbers(version) < _OLDEST_RABBITMQ:
        raise ConfigError(f"RabbitMQ {version} is too old: 3.10 or later is needed.")
    return f"RabbitMQ {version}; quorum queues, streams and at-least-once dead-lettering declared; no plugin is needed"


async def _redis(settings: Settings) -> str:
    async with aclosing(Store(settings.redis_url.get_secret_value())) as store:
        told = await store.check()
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
    return f"{settings.spool_dir} can be written; {waiting} messages wait"


async def _sources(settings: Settings) -> str:
    sources = settings.load_sources()
    for source in sources.values():
        token = source.adapter.secret
        if source.secret is not None and token is not None and token != source.secret.get_secret_value():
            raise ConfigError(f"Source {source.name}: the token in its adapter link is not its secret; callbacks would get 401.")
        if source.secret is None and settings.ingress_host not in LOOPBACK:
            raise ConfigError(f"Source {source.name} has no secret, and ingress listens on {settings.ingress_host}.")
    unfetched = [name for name, source in sources.items() if source.recording_origin is None]
    more = f"; without recording links: {', '.join(unfetched)}" if unfetched else ""
    return f"{', '.join(sources)}{more}"


CHECKS: dict[str, Check] = {
    "sources": _sources,
    "rabbitmq": _rabbitmq,
    "redis": _redis,
    "archive": _archive,
    "spool": _spool,
}


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
