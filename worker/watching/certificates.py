"""Observes when the certificates of RabbitMQ, Redis and the PBXs end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Final, NoReturn

from yarl import URL

from shared import metrics
from shared.config.live_sources import LiveSources
from shared.config.settings import Settings
from shared.domain.condition import Figure, Kind, Observation
from shared.domain.times import rfc3339
from shared.log import get_logger
from shared.outage import Outage
from shared.runtime.tls_probe import certificate_end
from shared.state.redis_url import parse_redis_url

log = get_logger(__name__)
_READS = Outage(log, "certificates_unreadable", "certificates_readable")

EXPIRING: Final = timedelta(days=14)
"""The rest of the validity at which a certificate is about to expire: enough to renew it by hand."""

_DAY_S: Final = 24 * 3600.0
# While a certificate is about to expire, or could not be read, it is read more often.
_SOON_S: Final = 3600.0
_MAX_SERVERS: Final = 100
_AMQPS_PORT: Final = 5671

Server = tuple[str, int]


class CertificateWatch:
    """Reads the certificates at the start, and then once a day.

    Attributes:
        servers: the configured servers; None before the first time.
    """

    def __init__(self, settings: Settings, sources: LiveSources, now: Callable[[], datetime]) -> None:
        self._settings, self._sources, self._now = settings, sources, now
        self._ends: dict[str, datetime] = {}
        self.servers: list[str] | None = None

    async def run(self) -> NoReturn:
        """Read until cancelled. Run it as a task."""
        while True:
            is_complete = await self.read()
            is_quiet = is_complete and not any(seen.is_bad for seen in self.observations())
            await asyncio.sleep(_DAY_S if is_quiet else _SOON_S)

    async def read(self) -> bool:
        """Read all certificates, one after the other; returns whether each could be read."""
        servers = tls_servers(self._settings, self._sources)
        failures: list[str] = []
        for server, (host, port) in servers.items():
            try:
                end = await certificate_end(host, port)
            except (OSError, ValueError) as error:
                failures.append(f"{server}: {str(error) or type(error).__name__}")
            else:
                self._ends[server] = end
                metrics.CERTIFICATE_EXPIRY.set(end.timestamp(), server)
        for removed in set(self.servers or ()) - set(servers):
            metrics.CERTIFICATE_EXPIRY.set(None, removed)
        self.servers = list(servers)
        if failures:
            _READS.failed("; ".join(failures))
        else:
            _READS.succeeded()
        return not failures

    def observations(self) -> list[Observation]:
        """Return what is known. A certificate that cannot be read any more is as it was read last."""
        return [_observation(server, self._ends[server], self._now()) for server in self.servers or () if server in self._ends]


def tls_servers(settings: Settings, sources: LiveSources) -> Mapping[str, Server]:
    """Return the servers with certificates that the settings and sources name, as `host:port`."""
    servers: dict[str, Server] = {}
    for host, port in _addresses(settings, sources):
        if len(servers) < _MAX_SERVERS:
            servers[f"[{host}]:{port}" if ":" in host else f"{host}:{port}"] = (host, port)
    return servers


def _addresses(settings: Settings, sources: LiveSources) -> Iterator[Server]:
    for text in settings.amqp_urls:
        url = URL(text)
        if url.scheme == "amqps" and url.host:
            yield url.host, url.port or _AMQPS_PORT
    redis = parse_redis_url(settings.redis_url.get_secret_value())
    endpoint = redis.sentinels if redis.service else redis.servers
    if endpoint.scheme == "rediss":
        yield from redis.addresses
    for source in sources.current.values():
        links = [source.recording_origin, source.dial_url.get_secret_value() if source.dial_url else None]
        for link in links:
            url = URL(link or "")
            if url.scheme == "https" and url.raw_host:
                yield url.raw_host, url.port or 0


def _observation(server: str, end: datetime, now: datetime) -> Observation:
    days_left = round((end - now) / timedelta(days=1), 1)
    begins = end - EXPIRING
    if now >= begins:
        detail = f"The certificate of {server} is valid until {rfc3339(end)}. Renew it."
        figures: dict[str, Figure] = {"expires_at": rfc3339(end), "days_left": days_left}
        return Observation(Kind.CERTIFICATE_EXPIRING, server, is_bad=True, at=rfc3339(begins), detail=detail, figures=figures)
    detail = f"The certificate of {server} is renewed, and valid until {rfc3339(end)}."
    return Observation(
        Kind.CERTIFICATE_EXPIRING, server, is_bad=False, at=rfc3339(now), detail=detail, figures={"expires_at": rfc3339(end)}
    )
