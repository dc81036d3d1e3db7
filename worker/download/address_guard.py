"""Limits the addresses that a download may connect to. It checks them when a socket is created (OWASP, SSRF prevention).

Earlier checks can be bypassed. A check of names misses literal addresses and IPv4 written as IPv6. A check of the resolver's
reply misses a name whose address changes afterwards.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from aiohappyeyeballs import AddrInfoType

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

REFUSED = "address not allowed"


class AddressRefusedError(OSError):
    """The address is not one of the configured origin."""


# No PBX is at these addresses. They embed another address (RFC 3056, 4380, 6052, 8215), or belong to the metadata service of
# a cloud provider outside the link-local networks.
_NEVER: tuple[Network, ...] = tuple(
    ip_network(network)
    for network in (
        "2002::/16", "2001::/32", "64:ff9b::/96", "64:ff9b:1::/48", "::/96", "fec0::/10",
        "fd00:ec2::254/128", "fd20:ce::254/128", "100.100.100.200/32", "168.63.129.16/32", "192.0.0.0/24",
    )
)  # fmt: skip


def address_check(host: str, networks: Sequence[Network], *, trusts_literal: bool = True) -> Callable[[str], bool]:
    """Return a function that checks the addresses of `host`. If `networks` are given, it allows no others.

    If `host` is a literal address, only that address is allowed. It may be private or loopback, as a PBX usually is. A name
    resolves to whatever its name server returns, so it may have public addresses, and private ones only in `networks`. It
    never may have loopback or link-local addresses, or those that embed another address. Without `trusts_literal`, a literal
    address may be loopback, and no other one of these.
    """
    literal = _literal(host)
    is_localhost = host.rstrip(".").lower() == "localhost"

    def is_allowed(text: str) -> bool:
        address = _plain(ip_address(text.partition("%")[0]))
        if networks and not any(address in network for network in networks):
            return False
        if literal or is_localhost:
            is_trusted = trusts_literal or address.is_loopback or not _is_special(address)
            return address == literal and is_trusted if literal else address.is_loopback
        return not _is_special(address) and (bool(networks) or address.is_global)

    return is_allowed


def socket_factory(
    host: str, networks: Sequence[Network], *, trusts_literal: bool = True
) -> Callable[[AddrInfoType], socket.socket]:
    """Return a function that creates sockets to the allowed addresses of `host`."""
    is_allowed = address_check(host, networks, trusts_literal=trusts_literal)

    def make(info: AddrInfoType) -> socket.socket:
        family, kind, protocol, _, target = info
        if not is_allowed(str(target[0])):
            raise AddressRefusedError(f"{REFUSED}: {target[0]} for {host}")
        return socket.socket(family, kind, protocol)

    return make


def _literal(host: str) -> Address | None:
    try:
        return _plain(ip_address(host.strip("[]")))
    except ValueError:
        return None


def _plain(address: Address) -> Address:
    """Convert IPv4 written as IPv6 (`::ffff:127.0.0.1`) to IPv4."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _is_special(address: Address) -> bool:
    return (
        address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or address.is_reserved
        or any(address in network for network in _NEVER)
    )
