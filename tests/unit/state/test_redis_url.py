"""CALLFOLD_REDIS_URL: each form is read, a mistake is named, and nothing of a password is shown."""

from __future__ import annotations

import pytest

from shared.masking import mask_credentials
from shared.state.redis_url import Address, Kind, parse_redis_url

PASSWORD = "s3cr3t"


def test_one_server() -> None:
    url = parse_redis_url("redis://user:s3cr3t@cache:6380/3?socket_timeout=1")
    assert (url.kind, url.addresses) == (Kind.SERVER, (Address("cache", 6380),))
    assert url.servers.url(url.addresses[0]) == "redis://user:s3cr3t@cache:6380/3?socket_timeout=1"


@pytest.mark.parametrize(
    "text",
    [
        "rediss://user:a,s3cr3t@one:1,[::1]:2,three/4",
        "rediss://user:a,s3cr3t@one:1/4,rediss://user:a,s3cr3t@[::1]:2/4, rediss://user:a,s3cr3t@three/4",
    ],
)
def test_several_addresses_of_one_server(text: str) -> None:
    url = parse_redis_url(text)
    assert url.addresses == (Address("one", 1), Address("::1", 2), Address("three", 6379))
    assert [url.servers.url(address) for address in url.addresses][1] == "rediss://user:a,s3cr3t@[::1]:2/4"


def test_a_socket_of_this_machine() -> None:
    assert parse_redis_url("unix:///run/redis.sock?db=1").socket == "unix:///run/redis.sock?db=1"


def test_sentinels_have_their_own_credentials() -> None:
    url = parse_redis_url("redis+sentinel://user:s3cr3t@one,two:2/calls/5?sentinel_username=s&sentinel_password=w%2Fx")
    assert (url.kind, url.service, url.addresses) == (Kind.SENTINEL, "calls", (Address("one", 26379), Address("two", 2)))
    assert url.servers.url(Address("server", 1)) == "redis://user:s3cr3t@server:1/5"
    assert url.sentinels.url(url.addresses[0]) == "redis://s:w%2Fx@one:26379/0"


def test_sentinels_use_tls_as_the_servers_do_unless_the_url_says_no() -> None:
    url = parse_redis_url("rediss+sentinel://one/calls?ssl_ca_certs=/ca.pem")
    assert url.sentinels.url(url.addresses[0]) == "rediss://one:26379/0?ssl_ca_certs=%2Fca.pem"
    url = parse_redis_url("rediss+sentinel://one/calls?ssl_ca_certs=/ca.pem&sentinel_tls=no")
    assert url.sentinels.url(url.addresses[0]) == "redis://one:26379/0"
    assert url.servers.url(Address("server", 1)) == "rediss://server:1/0?ssl_ca_certs=%2Fca.pem"


def test_a_cluster() -> None:
    url = parse_redis_url("rediss+cluster://user:s3cr3t@one:7000,two")
    assert (url.kind, url.addresses) == (Kind.CLUSTER, (Address("one", 7000), Address("two", 6379)))
    assert url.servers.url(Address("server", 1)) == "rediss://user:s3cr3t@server:1/0"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("s3cr3t", "must begin with redis://"),
        ("http://user:s3cr3t@host", "must begin with redis://"),
        ("redis://user:s3cr3t@", "no host"),
        ("redis://user:s3cr3t@one,,three", "no host in address 2 of 3"),
        ("redis://user:s3cr3t@one:1,two:s3cr3t", "no valid port in address 2 of 2"),
        ("redis://one:65536", "no valid port"),
        ("redis://user:s3cr3t:one:1", "%3A"),
        ("redis://user:s3cr3t/x@one:1", "%2F"),
        ("redis://user:s3cr3t?x@one:1", "%3F"),
        ("redis://user:s3cr3t#x@one:1", "%23"),
        ("redis://one:1,one:1", "the same address twice"),
        ("redis://one/s3cr3t", "number of a database"),
        ("redis://one/0?s3cr3t=1", "option"),
        ("redis://one/0?socket_timeout=s3cr3t", "option"),
        ("redis://a:s3cr3t@one/0,redis://b:s3cr3t@two/0", "differ in more than their address"),
        ("redis+sentinel://a:s3cr3t@one", "must name the service"),
        ("redis+sentinel://one/calls?sentinel_username=s3cr3t", "sentinel_password"),
        ("redis+sentinel://one/calls?sentinel_tls=s3cr3t", "sentinel_tls"),
        ("redis+cluster://user:s3cr3t@one/1", "only database 0"),
        ("redis+cluster://a:s3cr3t@one,redis+cluster://a:s3cr3t@two", "several URLs"),
    ],
)
def test_a_mistake_is_named_and_no_password_is_shown(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=r"^CALLFOLD_REDIS_URL ") as raised:
        parse_redis_url(text)
    assert problem in str(raised.value)
    assert PASSWORD not in str(raised.value)
    assert raised.value.__cause__ is None


@pytest.mark.parametrize(
    "text",
    [
        "redis://user:s3cr3t@one:1,two:2/0",
        "redis://:s3cr3t@one/0,redis://:s3cr3t@two/0",
        "redis+sentinel://user:s3cr3t@one:1,two:2/calls/0",
        "rediss+sentinel://one:1,two:2/calls/0?sentinel_username=u&sentinel_password=s3cr3t&ssl_ca_certs=/x",
        "rediss+cluster://user:s3cr3t@[::1]:1,two:2",
        "redis+cluster://user:a,s3cr3t@one,two",
    ],
)
def test_no_form_shows_a_password(text: str) -> None:
    for shown in (mask_credentials(f"Cannot use {text} now"), repr(parse_redis_url(text)), str(parse_redis_url(text))):
        assert PASSWORD not in shown
