"""Whose request it is, as far as the network tells: the address of the client, also behind proxies of one's own."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

from aiohttp import web

from shared.errors import ConfigError

_IPV6_OF_ONE = 64  # who has one IPv6 address has as many as he likes of its network


class Proxies:
    """The proxies that are believed; what anybody else says about addresses is not looked at."""

    def __init__(self, networks: str) -> None:
        """Read addresses and networks, separated by commas.

        Raises:
            ConfigError: one of them is none.
        """
        try:
            self._networks = [ip_network(text.strip()) for text in networks.split(",") if text.strip()]
        except ValueError as error:
            raise ConfigError(f"CALLFOLD_CONSOLE_PROXIES: {error}.") from error

    def client(self, request: web.Request) -> str:
        """Name the client: the connection's other end, or the last in `X-Forwarded-For` that is no proxy of ours."""
        told = ",".join(request.headers.getall("X-Forwarded-For", [])).split(",")
        client = _address(request.remote or "")
        while client is not None and told and any(client in network for network in self._networks):
            before = _address(told.pop())
            if before is None:
                break
            client = before
        if isinstance(client, IPv6Address):
            return str(IPv6Network((client, _IPV6_OF_ONE), strict=False))
        return str(client or "?")


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        found = ip_address(text.strip())
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or found
