"""How much each sender may put into the quarantine, and all of them together. No I/O, no clock."""

from __future__ import annotations

from collections import OrderedDict

# A PBX of a hundred calls a minute sends less. A stranger at this rate needs half an hour to displace what the quarantine holds.
PEER_BYTES_PER_S, PEER_BURST_BYTES = 32 * 1024, 1 << 20
ALL_BYTES_PER_S, ALL_BURST_BYTES = 64 * 1024, 4 << 20
# What RabbitMQ keeps of a message beyond its bytes.
OVERHEAD_BYTES = 512
_MAX_PEERS = 4096


class _Bucket:
    __slots__ = ("_at", "_burst", "_left", "_rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate, self._burst = rate, burst
        self._left, self._at = burst, now

    def has(self, size: int, now: float) -> bool:
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        return self._left >= size

    def take(self, size: int) -> None:
        self._left -= size


class PeerRates:
    """A token bucket of bytes for each sender, and one for all. It remembers the senders that were active last."""

    def __init__(self, now: float) -> None:
        self._peers: OrderedDict[str, _Bucket] = OrderedDict()
        self._all = _Bucket(ALL_BYTES_PER_S, ALL_BURST_BYTES, now)

    def take(self, peer: str, size: int, now: float) -> bool:
        """Return whether a sender may have these bytes kept, and count them if so."""
        size += OVERHEAD_BYTES
        bucket = self._peers.get(peer)
        if bucket is None:
            bucket = self._peers[peer] = _Bucket(PEER_BYTES_PER_S, PEER_BURST_BYTES, now)
            if len(self._peers) > _MAX_PEERS:
                self._peers.popitem(last=False)
        else:
            self._peers.move_to_end(peer)
        if not (bucket.has(size, now) and self._all.has(size, now)):
            return False
        bucket.take(size)
        self._all.take(size)
        return True
