"""A bound on responses that stay open for long: event streams, and downloads by slow readers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

from console.web.problems import problem

_RETRY_S = "10"


class OpenResponses:
    """Counts open responses of one kind, of each key and in total, so that no key can take all."""

    def __init__(self, kind: str, *, per_key: int, total: int) -> None:
        self._kind = kind
        self._per_key = per_key
        self._total = total
        self._open: Counter[str] = Counter()

    def refuse_beyond(self, key: str) -> web.Response | None:
        """Return a refusal if a key, or the console, has the maximum of open responses."""
        if self._open[key] >= self._per_key:
            title = f"This key has {self._per_key} open {self._kind}, the maximum. Close one and try again."
            return problem(429, title, {"Retry-After": _RETRY_S})
        if self._open.total() >= self._total:
            title = f"This console has {self._total} open {self._kind}, the maximum. Try again later or use another console."
            return problem(503, title, {"Retry-After": _RETRY_S})
        return None

    @contextmanager
    def one(self, key: str) -> Iterator[None]:
        """Count one open response of a key."""
        self._open[key] += 1
        try:
            yield
        finally:
            self._open[key] -= 1
