"""The checks of `callfold doctor` on the hosts of the PBXs: name, address, port, and for https the certificate."""

from __future__ import annotations

import ssl
import time
from collections.abc import Sequence

from yarl import URL

from console.commands.doubt import DoubtError
from console.counts import counted
from shared.config.links import origin
from shared.config.settings import Settings
from shared.config.sources import Source
from shared.errors import ConfigError
from shared.runtime.tls_probe import open_first, resolve
from worker.download.address_guard import address_check
from worker.download.connection_failures import certificate_failure

_DAY_S = 86400
# Enough to renew a certificate by hand.
_FEW_DAYS = 14


async def recording_origins(settings: Settings) -> str:
    """Check the hosts recordings are downloaded from. A private address is refused unless `recording_networks` has it.

    Raises:
        ConfigError: downloads from an address are not allowed, or a certificate is refused.
        DoubtError: a name does not resolve, a host does not answer, or a certificate expires soon.
    """
    sources = settings.load_sources().values()
    return await _check([(source, source.recording_origin) for source in sources if source.recording_origin], is_guarded=True)


async def dial_links(settings: Settings) -> str:
    """Check the hosts dial requests are sent to.

    Raises:
        ConfigError: a certificate is refused.
        DoubtError: a name does not resolve, a host does not answer, or a certificate expires soon.
    """
    sources = settings.load_sources().values()
    links = [(source, origin(source.dial_url.get_secret_value())) for source in sources if source.dial_url]
    return await _check(links, is_guarded=False)


async def _check(links: Sequence[tuple[Source, str]], *, is_guarded: bool) -> str:
    reached: list[str] = []
    doubts: list[str] = []
    for source, link in links:
        url = URL(link)
        host, port = url.host or "", url.port or 0
        try:
            addresses = await resolve(host)
        except OSError as error:
            doubts.append(f"{host} of source {source.name} does not resolve: {_reason(error)}")
            continue
        if is_guarded:
            _refuse_private(source, host, addresses)
        answer = ""
        try:
            if url.scheme == "https":
                days = await handshake(addresses, port, url.raw_host or host)
                answer = f", certificate valid for {counted(days, 'day')}"
                if days < _FEW_DAYS:
                    doubts.append(f"the certificate of {host}:{port} of source {source.name} expires in {counted(days, 'day')}")
            else:
                writer = await open_first(addresses, port)
                writer.transport.abort()
        except ssl.SSLError as error:
            raise ConfigError(f"Source {source.name}, {host}:{port}: {certificate_failure(error).detail}.") from error
        except OSError as error:
            doubts.append(f"{host}:{port} of source {source.name} does not answer: {_reason(error)}")
        reached.append(f"{host} at {', '.join(addresses)}{answer}")
    if doubts:
        raise DoubtError("; ".join(doubts))
    return "; ".join(reached) or "none"


def _refuse_private(source: Source, host: str, addresses: Sequence[str]) -> None:
    refused = [address for address in addresses if not address_check(host, source.recording_networks)(address)]
    if refused:
        raise ConfigError(
            f"Source {source.name}: {host} resolves to {refused[0]}, an address that downloads may not use. If that is the PBX, "
            f'add recording_networks = ["{refused[0]}"] to [sources.{source.name}].'
        )


async def handshake(addresses: Sequence[str], port: int, host: str) -> int:
    """Make a TLS connection to the first of these addresses that answers, with the checks of downloads.

    Returns:
        For how many days the certificate is valid.

    Raises:
        ssl.SSLError: the certificate is refused, or there is no TLS on this port.
        OSError: no address answers; this is the error of the last one.
    """
    writer = await open_first(addresses, port, tls=ssl.create_default_context(), host=host)
    certificate = writer.get_extra_info("peercert")
    writer.transport.abort()
    return int((ssl.cert_time_to_seconds(certificate["notAfter"]) - time.time()) / _DAY_S)


def _reason(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    return error.strerror or str(error)
