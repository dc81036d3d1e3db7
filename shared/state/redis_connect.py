"""The client for a CALLFOLD_REDIS_URL."""

from __future__ import annotations

from shared.state.locating import Locator, Sentinels, SeveralAddresses
from shared.state.redis_client import RedisClient
from shared.state.redis_cluster import RedisCluster
from shared.state.redis_url import Kind, parse_redis_url
from shared.state.replicas import Replicas


def connect(text: str, *, replicas: int = 0) -> RedisClient:
    """Prepare the client of a URL without opening a connection; `replicas` must confirm what must not be lost."""
    url = parse_redis_url(text)
    if url.kind is Kind.CLUSTER:
        return RedisCluster(url, Replicas(replicas))
    locator: Locator | None = None
    if url.kind is Kind.SENTINEL:
        locator = Sentinels(url)
    elif len(url.addresses) > 1:
        locator = SeveralAddresses(url)
    return RedisClient(url, Replicas(replicas), locator=locator)
