"""The metrics that one process exports: the rows of its role, each series from the start."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Iterable
from importlib.metadata import version

from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from shared.metrics.process import BUILD_INFO
from shared.metrics.rows import TABLE, Measurement, Role, Row

_END = b"# EOF\n"


class Export:
    """The metrics of one process, as `/metrics` answers them."""

    def __init__(self, role: Role) -> None:
        self._rows = [row for row in TABLE.values() if role in row.roles]
        libraries: list[Collector] = [PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR]
        self._collectors = libraries + [row.collector for row in self._rows]
        BUILD_INFO.labels(version("callfold"), platform.python_version(), role).set(1)
        for row in self._rows:
            if not row.has_source:
                self._begin(row, ())

    def add_sources(self, names: Iterable[str]) -> None:
        """Let the series of these sources begin, so that the first event of each is seen as an increase."""
        sources = tuple(names)
        for row in self._rows:
            if row.has_source:
                self._begin(row, sources)

    @staticmethod
    def _begin(row: Row, sources: tuple[str, ...]) -> None:
        if not isinstance(row.collector, Measurement):
            for values in row.first_series(sources):
                row.collector.labels(*values)

    async def render(self, accept: str) -> tuple[bytes, str]:
        """Return the body and the content type that a client accepts: OpenMetrics, with exemplars, only if it asks for it.

        With hundreds of sources this takes a tenth of a second, so it gives way after each metric.
        """
        try:
            encode, content_type = choose_encoder(accept)
        except (TypeError, ValueError):  # a version that the library cannot read
            encode, content_type = choose_encoder("")
        parts: list[bytes] = []
        for collector in self._collectors:
            parts.append(encode(collector).removesuffix(_END))
            await asyncio.sleep(0)
        return b"".join(parts) + (_END if "openmetrics" in content_type else b""), content_type
