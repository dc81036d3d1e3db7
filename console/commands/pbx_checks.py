"""What `callfold doctor` finds of the PBXs' hosts: where their names lead, and whether somebody answers there."""

from __future__ import annotations

from collections.abc import Sequence

from yarl import URL

from console.commands import reachability as reach
from shared.config.settings import Settings
from shared.config.sources import Source, origin
from shared.errors import CallfoldError, ConfigError
from worker.download.address_guard import allowed


class DoubtError(CallfoldError):
    """Something does not answer: it may come back, and other machines than this one may have to reach it."""


async def recording_origins(settings: Settings) -> str:
    """See where recordings are fetched: a private address of a name is refused unless `recording_networks` has it.

    Raises:
        ConfigError: downloads may not go there.
        DoubtError: a name does not resolve, or nobody answers.
    """
    sources = settings.load_sources().values()
    return await _seen([(source, source.recording_origin) for source in sources if source.recording_origin], is_guarded=True)


async def dial_links(settings: Settings) -> str:
    """See where dial requests go.

    Raises:
        DoubtError: a name does not resolve, or nobody answers.
    """
    sources = settings.load_sources().values()
    links = [(source, origin(source.dial_url.get_secret_value())) for source in sources if source.dial_url]
    return await _seen(links, is_guarded=False)


async def _seen(links: Sequence[tuple[Source, str]], *, is_guarded: bool) -> str:
    found: list[str] = []
    doubts: list[str] = []
    for source, link in links:
        url = URL(link)
        host, port = url.host or "", url.port or 0
        try:
            addresses = await reach.look_up(host)
        except OSError as error:
            doubts.append(f"source {source.name}: {host} does not resolve: {reach.reason(error)}")
            continue
        if is_guarded:
            _refuse_private(source, host, addresses)
        try:
            await reach.connect(addresses, port)
        except OSError as error:
            doubts.append(f"source {source.name}: {host}:{port} does not answer: {reach.reason(error)}")
        found.append(f"{host} at {', '.join(addresses)}")
    if doubts:
        raise DoubtError("; ".join(doubts))
    return "; ".join(found) or "none"


def _refuse_private(source: Source, host: str, addresses: Sequence[str]) -> None:
    refused = [address for address in addresses if not allowed(host, source.recording_networks)(address)]
    if refused:
        raise ConfigError(
            f"Source {source.name}: {host} is at {refused[0]}, where downloads may not go; if that is the PBX, add "
            f'recording_networks = ["{refused[0]}"] to [sources.{source.name}].'
        )
