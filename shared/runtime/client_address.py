"""The address of a request's client, also behind trusted proxies."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

from aiohttp import web

from shared.errors import ConfigError

_LONGEST_ADDRESS = 64
_IPV6_CLIENT_PREFIX = 64  # a client with one IPv6 address can use any other of its /64 network


class Proxies:
    """The trusted proxies. `X-Forwarded-For` is read only as far as they wrote it."""

    def __init__(self, networks: str, *, setting: str = "CALLFOLD_CONSOLE_PROXIES") -> None:
        """Read addresses and networks, separated by commas; `setting` names their setting.

        Raises:
            ConfigError: one of them is neither.
        """
        try:
            self._networks = [ip_network(text.strip()) for text in networks.split(",") if text.strip()]
        except ValueError as error:
            raise ConfigError(f"{setting}: {error}. Write addresses or networks like 10.0.0.0/8, separated by commas.") from error

    def client(self, request: web.BaseRequest) -> str:
        """Return the client's address: the peer, or the last address in `X-Forwarded-For` that is not a trusted proxy."""
        client = _address(request.remote or "")
        if client is not None and request.headers and self._is_trusted(client):  # a request that is no HTTP has no headers
            forwarded = ",".join(request.headers.getall("X-Forwarded-For", [])).split(",")
            while forwarded and self._is_trusted(client):
                before = _address(forwarded.pop().strip())
                if before is None:
                    break
                client = before
        if isinstance(client, IPv6Address):
            return str(IPv6Network((client, _IPV6_CLIENT_PREFIX), strict=False))
        return str(client or "?")

    def _is_trusted(self, client: IPv4Address | IPv6Address) -> bool:
        return any(client in network for network in self._networks)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    return _parsed(text) if len(text) <= _LONGEST_ADDRESS else None


@lru_cache(maxsize=1024)
def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
