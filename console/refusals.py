"""What ingress refused in the last day, in words: summed from the counts in the quarantine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from shared.amqp.topology import CALLBACKS_QUARANTINE
from shared.config.settings import Settings
from shared.domain.quarantined import Refusal, RefusalCounts, decode_quarantined, may_be_counts
from shared.domain.times import rfc3339
from shared.partial_values import mask
from shared.streams.journal import journal_until_now

REMEMBERED = timedelta(days=1)
_HOUR = len("2026-11-23T07")
_KEPT = "`callfold quarantine list` shows them"
_SENTENCES: Mapping[str, tuple[str, str]] = {
    Refusal.WRONG_SECRET: ("without the right secret", f"Compare with `callfold adapter-link`; {_KEPT}"),
    Refusal.UNKNOWN_SOURCE: ("for no configured source", f"Correct the link, or configure the source; {_KEPT}"),
    Refusal.WRONG_METHOD: ("neither GET nor POST", "Correct the client"),
    Refusal.BODY_TOO_LARGE: ("with a body over 64 KiB", "Shorten the link"),
    Refusal.BODY_TOO_SLOW: ("whose body did not arrive in time", "Check the network"),
    Refusal.BODY_UNREADABLE: ("with a body of an unknown type", "Send a form"),
    Refusal.LINE_TOO_LONG: ("with a request line over 8 KiB", "Send a POST form, or shorten the link"),
    Refusal.HEADERS_TOO_LONG: ("with too long or too many headers", "Check the proxy in front"),
    Refusal.NOT_HTTP: ("not valid HTTP", "Find the client, or the proxy in front"),
    Refusal.LIMITED: ("beyond a limit of the source", "See `source_limited` in the log"),
    Refusal.UNAVAILABLE: ("for which neither RabbitMQ nor the spool had room", "Check both"),
    Refusal.FAULT: ("on which ingress failed", "See `request_failed` in its log"),
}
# Every scanner of the Internet causes these, so they say little without a source.
_NOISE = frozenset({Refusal.UNKNOWN_SOURCE, Refusal.WRONG_METHOD, Refusal.NOT_HTTP})


class _Key(NamedTuple):
    reason: str
    source: str


class RefusalTotals:
    """Counts by hour, so that they stay few however many messages are added."""

    def __init__(self) -> None:
        self._hours: dict[str, Counter[_Key]] = {}
        self._peers: dict[_Key, str] = {}

    def clear(self) -> None:
        self._hours.clear()
        self._peers.clear()

    def add(self, message: RefusalCounts) -> None:
        """Add the counts of one message, unless they are older than a day."""
        earliest = _earliest()
        self._hours = {hour: counts for hour, counts in self._hours.items() if hour >= earliest}
        hour = message.received_at[:_HOUR]
        if hour < earliest:
            return
        for count in message.counts:
            key = _Key(count.reason, count.source)
            self._hours.setdefault(hour, Counter())[key] += count.count
            self._peers[key] = count.peer

    def count(self) -> int:
        """Return how many requests were refused in the last day."""
        return sum(self._totals().values())

    def has_callbacks(self) -> bool:
        """Return whether some were surely callbacks, and not only what every port of the Internet gets."""
        return any(key.source or key.reason not in _NOISE for key in self._totals())

    def sentences(self) -> list[str]:
        """Return a sentence for each kind, the most frequent first."""
        return [self._sentence(key, count) for key, count in self._totals().most_common()]

    def _totals(self) -> Counter[_Key]:
        earliest, totals = _earliest(), Counter[_Key]()
        for hour, counts in self._hours.items():
            if hour >= earliest:
                totals.update(counts)
        return totals

    def _sentence(self, key: _Key, count: int) -> str:
        what, advice = _SENTENCES.get(
            key.reason, (f"({mask(key.reason)})", "Upgrade this console, which does not know the reason")
        )
        source = f" for {key.source}" if key.source else ""
        noun = "request was" if count == 1 else "requests were"
        return f"{count} {noun} refused{source}, {what}, the last from {self._peers[key]}. {advice}."


async def count_refusals(settings: Settings, *, connect_s: float | None = None) -> RefusalTotals:
    """Count what ingress refused in the last day.

    Raises:
        CallfoldError: RabbitMQ cannot be reached, or the connection is lost while reading.
    """
    totals = RefusalTotals()
    since = datetime.now(UTC) - REMEMBERED
    async with journal_until_now(settings, since, stream=CALLBACKS_QUARANTINE, connect_s=connect_s) as deliveries:
        async for delivery in deliveries:
            counts = decode_quarantined(delivery.body) if may_be_counts(delivery.body) else None
            if isinstance(counts, RefusalCounts):
                totals.add(counts)
    return totals


def _earliest() -> str:
    return rfc3339(datetime.now(UTC) - REMEMBERED)[:_HOUR]
