"""The forms of CALLFOLD_REDIS_URL: one server, several addresses of one, Sentinels, or a cluster. docs/settings.md lists them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlencode

from redis.asyncio import ConnectionPool

SETTING: Final = "CALLFOLD_REDIS_URL"
_REDIS_PORT: Final = 6379
_SENTINEL_PORT: Final = 26379
_MAX_PORT: Final = 65535
_NEXT_URL = re.compile(r",\s*(?=[a-z+]+://)", re.IGNORECASE)
_PORT = re.compile(r"\d{1,5}", re.ASCII)


class Kind(StrEnum):
    """Kind of the servers whose addresses a URL has."""

    SERVER = "server"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


_SCHEMES: Final = {
    "redis": (Kind.SERVER, "redis"),
    "rediss": (Kind.SERVER, "rediss"),
    "redis+sentinel": (Kind.SENTINEL, "redis"),
    "rediss+sentinel": (Kind.SENTINEL, "rediss"),
    "redis+cluster": (Kind.CLUSTER, "redis"),
    "rediss+cluster": (Kind.CLUSTER, "rediss"),
}


class Address(NamedTuple):
    """Host and port of a server."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The part of a URL that all servers share: scheme, user, password, database and options of the library."""

    scheme: str
    user_info: str = field(default="", repr=False)
    database: str = "0"
    options: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    def url(self, address: Address) -> str:
        """Return the URL of one server, as the library takes it."""
        at = f"{self.user_info}@" if self.user_info else ""
        options = f"?{urlencode(self.options)}" if self.options else ""
        return f"{self.scheme}://{at}{address}/{self.database}{options}"


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """A checked CALLFOLD_REDIS_URL.

    Attributes:
        addresses: of the server, the Sentinels, or some nodes of the cluster; none for a socket of this machine.
        servers: of the servers that have data.
        sentinels: of the Sentinels.
        service: the name by which the Sentinels know the servers.
        socket: URL of a socket of this machine, or ''.
    """

    kind: Kind
    addresses: tuple[Address, ...] = ()
    servers: Endpoint = field(default_factory=lambda: Endpoint("redis"))
    sentinels: Endpoint = field(default_factory=lambda: Endpoint("redis"))
    service: str = ""
    socket: str = field(default="", repr=False)


def parse_redis_url(text: str) -> RedisUrl:
    """Check a URL. Errors quote nothing of it, because a wrong character can make any part of it a piece of the password.

    Raises:
        ValueError: the URL cannot be used; the message is a sentence that begins with the name of the setting.
    """
    try:
        urls = [_parse(part.strip()) for part in _NEXT_URL.split(text.strip())]
        url = urls[0]
        if len(urls) > 1:
            url = _joined(urls)
        _check_options(url)
    except ValueError as error:
        raise ValueError(f"{SETTING} {error}".rstrip(".")) from None
    return url


def _joined(urls: list[RedisUrl]) -> RedisUrl:
    """Return several URLs as one with several addresses."""
    first = urls[0]
    if any(each.kind is not Kind.SERVER or each.socket for each in urls):
        raise ValueError("has several URLs, which only redis:// and rediss:// allow. List the addresses in one URL.")
    if any(each.servers != first.servers for each in urls):
        raise ValueError("has several URLs that differ in more than their address. Use the same scheme, user, password and path.")
    return RedisUrl(Kind.SERVER, tuple(address for each in urls for address in each.addresses), first.servers)


def _parse(text: str) -> RedisUrl:
    scheme, _, rest = text.partition("://")
    if scheme.lower() == "unix":
        return RedisUrl(Kind.SERVER, socket=text)
    if scheme.lower() not in _SCHEMES:
        raise ValueError(f"must begin with {', '.join(f'{name}://' for name in _SCHEMES)} or unix://.")
    kind, data_scheme = _SCHEMES[scheme.lower()]
    authority, path, query = _split(rest)
    user_info, _, hosts = authority.rpartition("@")
    addresses = _addresses(hosts, _SENTINEL_PORT if kind is Kind.SENTINEL else _REDIS_PORT)
    options = dict(parse_qsl(query, keep_blank_values=True))
    database = path
    service, sentinels = "", Endpoint(data_scheme)
    if kind is Kind.SENTINEL:
        service, _, database = path.partition("/")
        service = unquote(service)
        if not service:
            raise ValueError("must name the service of the Sentinels: redis+sentinel://host:port,host:port/<service>/<database>.")
        sentinels = _sentinels(data_scheme, options)
    database = options.pop("db", database.strip("/") or "0")
    if not _PORT.fullmatch(database):
        raise ValueError("must end in the number of a database, such as /0.")
    if kind is Kind.CLUSTER and int(database):
        raise ValueError("must not name a database: a cluster has only database 0.")
    return RedisUrl(kind, addresses, Endpoint(data_scheme, user_info, database, tuple(options.items())), sentinels, service)


def _split(rest: str) -> tuple[str, str, str]:
    """Split what follows the scheme into authority, path and query."""
    if "#" in rest:
        raise ValueError("contains a `#`. Write it as %23 in a user or password.")
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    if "@" in path or ("@" in query and "@" not in authority and not path):
        raise ValueError("has a `/` or `?` in its user or password. Write them as %2F and %3F.")
    return authority, path, query


def _addresses(hosts: str, default_port: int) -> tuple[Address, ...]:
    parts = hosts.split(",")
    addresses = []
    for number, part in enumerate(parts, 1):
        which = f"address {number} of {len(parts)}" if len(parts) > 1 else "its address"
        host, colon, port = part.strip().rpartition(":")
        if not colon or part.strip().endswith("]"):
            host, port = part.strip(), str(default_port)
        if host.startswith("[") != host.endswith("]") or (":" in host and not host.startswith("[")):
            raise ValueError(
                f"has too many colons in {which}. Write an IPv6 address as [::1]:6379, and a colon in a password as %3A."
            )
        if not _PORT.fullmatch(port) or not 0 < int(port) <= _MAX_PORT:
            raise ValueError(f"has no valid port in {which}: it must be a number from 1 to {_MAX_PORT}.")
        if not host.strip("[]"):
            raise ValueError(f"has no host in {which}.")
        addresses.append(Address(unquote(host.strip("[]")), int(port)))
    if len(set(addresses)) < len(addresses):
        raise ValueError("has the same address twice.")
    return tuple(addresses)


def _sentinels(scheme: str, options: dict[str, str]) -> Endpoint:
    """Take the options of the Sentinels out of those of the URL. Certificates and other options hold for both."""
    user, password = options.pop("sentinel_username", ""), options.pop("sentinel_password", "")
    tls = options.pop("sentinel_tls", "yes" if scheme == "rediss" else "no")
    if tls not in {"yes", "no"}:
        raise ValueError("has a sentinel_tls that is neither yes nor no.")
    if user and not password:
        raise ValueError("has a sentinel_username without a sentinel_password.")
    user_info = f"{quote(user, safe='')}:{quote(password, safe='')}" if password else ""
    shared = tuple((name, value) for name, value in options.items() if tls == "yes" or not name.startswith("ssl_"))
    own = tuple((name, value) for name, value in shared if name not in {"db", "username", "password"})
    return Endpoint("rediss" if tls == "yes" else "redis", user_info, "0", own)


def _check_options(url: RedisUrl) -> None:
    """Let the library read the options, which it would otherwise do at the first connection."""
    texts = [url.socket] if url.socket else [each.url(url.addresses[0]) for each in (url.servers, url.sentinels)]
    for text in texts:
        try:
            ConnectionPool.from_url(text).make_connection()  # type: ignore[no-untyped-call]
        except (TypeError, ValueError):
            raise ValueError("has an option after the `?` that is unknown, or whose value is invalid.") from None
