"""The store on servers that ask for TLS: a cluster, and Sentinels."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path

import pytest

from console.local.ports import free_port
from shared.domain.ids import CallKey, CallRef, SourceName
from shared.errors import StoreUnavailableError
from shared.state.keys import PARTITIONS, partition
from shared.state.store import Store
from tests.helpers.certificates import Authority
from tests.helpers.pace import PACE
from tests.helpers.redis_clusters import redis_cluster, tls_port
from tests.helpers.redis_sentinels import SERVICE, sentinel
from tests.helpers.redis_servers import ask, redis_server, started
from tests.helpers.servers import eventually

_KEYS = [CallKey(SourceName("acme"), CallRef(str(number))) for number in range(100)]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    authority = Authority(tmp_path)
    authority.server()
    return authority


def _lines(authority: Authority) -> list[str]:
    certificate = authority.path.with_name("server.pem")
    files = (f"tls-cert-file {certificate}", f"tls-key-file {certificate}", f"tls-ca-cert-file {authority.path}")
    return [*files, "tls-auth-clients no"]


def _options(authority: Authority) -> list[str]:
    return [word for line in _lines(authority) for word in f"--{line}".split()]


async def _merge_everywhere(store: Store) -> None:
    assert len({partition(key) for key in _KEYS}) == PARTITIONS
    await store.merge({key: [[("a", "1")]] for key in _KEYS})
    assert set(await store.read_many(_KEYS)) == set(_KEYS)


async def test_a_cluster_is_asked_with_tls_on_every_node(tmp_path: Path, authority: Authority) -> None:
    options = [*_options(authority), "--tls-cluster", "yes", "--tls-replication", "yes"]
    options += ["--cluster-node-timeout", str(round(10_000 * PACE))]  # a node may stand still for a while
    async with redis_cluster(tmp_path / "redis", *options, replicas_each=0, has_tls=True) as redis:
        url = f"rediss+cluster://127.0.0.1:{tls_port(redis.nodes[0])}"
        async with aclosing(Store(f"{url}?ssl_ca_certs={authority.path}")) as store:
            await _merge_everywhere(store)
        await _check_is_refused(url)


async def test_sentinels_and_the_primary_are_asked_with_tls(tmp_path: Path, authority: Authority) -> None:
    primary_port, watcher_port = free_port(), free_port()
    options = [*_options(authority), "--tls-port", str(primary_port)]
    lines = [*_lines(authority), f"tls-port {watcher_port}", "tls-replication yes"]
    watcher = sentinel(tmp_path / "sentinel", "redis-server", primary_port, 1, lines)

    async def is_watching() -> bool:
        return "master" in str(await ask(watcher, "SENTINEL", "MASTER", SERVICE, is_raw=True))

    async with redis_server(tmp_path / "redis", *options), started([watcher]):
        await eventually(is_watching)
        url = f"rediss+sentinel://127.0.0.1:{watcher_port}/{SERVICE}/0"
        async with aclosing(Store(f"{url}?ssl_ca_certs={authority.path}")) as store:
            await _merge_everywhere(store)
        await _check_is_refused(url)


async def _check_is_refused(url: str) -> None:
    """The certificate is of an issuer that this machine does not trust."""
    async with aclosing(Store(url)) as store:
        with pytest.raises(StoreUnavailableError, match="certificate verify failed"):
            await store.check()
