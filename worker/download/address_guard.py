"""Where a download may connect to: the configured origin and nothing else, checked at the socket.

A check of names, or of what a resolver says, is passed by literal addresses, by IPv4 written as IPv6, and by a name that
tells another address a moment later. So the address is checked where the socket to it is made (OWASP, SSRF prevention).
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
    """A connection to an address that is not the configured origin's."""


# Addresses that stand for another, or are services of the machine's host: no name of a PBX leads there (RFC 3056, 4380, 6052,
# 8215; the metadata services of cloud providers outside the link-local networks).
_NEVER: tuple[Network, ...] = tuple(
    ip_network(network)
    for network in (
        "2002::/16", "2001::/32", "64:ff9b::/96", "64:ff9b:1::/48", "::/96", "fec0::/10",
        "fd00:ec2::254/128", "fd20:ce::254/128", "100.100.100.200/32", "168.63.129.16/32", "192.0.0.0/24",
    )
)  # fmt: skip


def allowed(host: str, networks: Sequence[Network]) -> Callable[[str], bool]:
    """Make the test of an address for connections to `host` alone; `networks`, where given, are the only ones it may be in.

    A host that is a literal address may be private or loopback, as a PBX usually is; it is that address alone. A name is
    whatever a name server says at the moment, so it may lead to public addresses, to private ones in `networks` alone, and
    never to this machine, its link, or what stands for another address.
    """
    literal = _literal(host)
    local = host.rstrip(".").lower() == "localhost"

    def is_allowed(text: str) -> bool:
        address = _plain(ip_address(text.partition("%")[0]))
        if networks and not any(address in network for network in networks):
            return False
        if literal or local:
            return address == literal if literal else address.is_loopback
        return not _is_special(address) and (bool(networks) or address.is_global)

    return is_allowed


def socket_factory(host: str, networks: Sequence[Network]) -> Callable[[AddrInfoType], socket.socket]:
    """Make sockets for connections to `host` at addresses that are allowed."""
    is_allowed = allowed(host, networks)

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
    """Read IPv4 written as IPv6 (`::ffff:127.0.0.1`) as what it is."""
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
