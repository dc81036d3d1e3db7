"""The rows of the table of metrics. Functions such as `counter` add one each, and return the object that counts."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TypedDict, Unpack

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import REGISTRY, Collector

# A series `..._created` for each counter would double what is scraped, and Callfold promises none.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Role(StrEnum):
    """A kind of process with a private port."""

    INGRESS = "ingress"
    WORKER = "worker"
    CONSOLE = "console"
    HISTORY = "history"
    FORWARD = "forward"


class Kind(StrEnum):
    """A type of metric, as Prometheus names it."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Label:
    """A label. Without `values` they are found at run time, but no client can choose one."""

    name: str
    values: tuple[str, ...] = ()


SOURCE = Label("source")
"""The label of a configured source. If a row has it, it is the first one."""

EVERY_ROLE = tuple(Role)


@dataclass(frozen=True, slots=True)
class Row:
    """A metric.

    Attributes:
        name: as it is scraped; the name of a counter ends with `_total`.
        help: one or two sentences, for the exposition and the page.
        roles: the processes that export it.
        collector: the object that has the values.
        labels: `SOURCE` is the first one if there is one.
        buckets: upper bounds of a histogram.
        remark: Markdown that follows `help` on the page.
        pairs: the values of all labels but `SOURCE` that can occur together, if not all of them can.
        is_measured: its series are missing while their values are unknown.
        is_begun_later: the process begins its series as soon as it knows the values of the labels, before it counts.
    """

    name: str
    kind: Kind
    help: str
    roles: tuple[Role, ...]
    collector: Counter | Gauge | Histogram | Measurement
    labels: tuple[Label, ...] = ()
    buckets: tuple[float, ...] = ()
    remark: str = ""
    pairs: tuple[tuple[str, ...], ...] = ()
    is_measured: bool = False
    is_begun_later: bool = False

    @property
    def has_source(self) -> bool:
        return SOURCE in self.labels

    @property
    def unit(self) -> str:
        """The unit that the name ends with, or ''."""
        stem = self.name.removesuffix("_total").removesuffix("_max")
        return next((unit for unit in ("timestamp_seconds", "seconds", "bytes", "ratio") if stem.endswith(f"_{unit}")), "")

    def first_series(self, sources: Iterable[str]) -> Iterator[tuple[str, ...]]:
        """Yield the label values of the series that exist from the start. None do if they depend on what happens."""
        if self.is_measured or self.is_begun_later or not self.labels:
            return
        others = self.labels[1:] if self.has_source else self.labels
        combinations = self.pairs or list(itertools.product(*(label.values for label in others)))
        heads = [(source,) for source in sources] if self.has_source else [()]
        yield from (head + combination for head, combination in itertools.product(heads, combinations))


class Measurement(Collector):
    """A gauge whose series exist only while their values are known, because 0 would be a value too."""

    def __init__(self, name: str, documentation: str, labelnames: tuple[str, ...]) -> None:
        self._family = (name, documentation)
        self._labelnames = labelnames
        self._values: dict[tuple[str, ...], float] = {}

    def set(self, value: float | None, *labels: str) -> None:
        """Set the value of a series; None removes it, because its value is unknown."""
        if value is None:
            self._values.pop(labels, None)
        else:
            self._values[labels] = value

    def clear(self) -> None:
        self._values.clear()

    def describe(self) -> Iterator[GaugeMetricFamily]:
        yield GaugeMetricFamily(*self._family, labels=self._labelnames)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        (family,) = self.describe()
        for labels, value in list(self._values.items()):
            family.add_metric(labels, value)
        yield family


TABLE: dict[str, Row] = {}
"""Every metric by name."""


class _Options(TypedDict, total=False):
    """The optional attributes of a row."""

    labels: tuple[Label, ...]
    remark: str
    pairs: tuple[tuple[str, ...], ...]
    is_begun_later: bool


def counter(name: str, text: str, *roles: Role, **options: Unpack[_Options]) -> Counter:
    collector = Counter(name, text, _names(options))
    TABLE[name] = Row(name, Kind.COUNTER, text, roles, collector, **options)
    return collector


def gauge(name: str, text: str, *roles: Role, **options: Unpack[_Options]) -> Gauge:
    collector = Gauge(name, text, _names(options))
    TABLE[name] = Row(name, Kind.GAUGE, text, roles, collector, **options)
    return collector


def measurement(name: str, text: str, *roles: Role, **options: Unpack[_Options]) -> Measurement:
    """Add a gauge whose series exist only while their values are known."""
    collector = Measurement(name, text, _names(options))
    REGISTRY.register(collector)
    TABLE[name] = Row(name, Kind.GAUGE, text, roles, collector, is_measured=True, **options)
    return collector


def histogram(name: str, text: str, *roles: Role, buckets: tuple[float, ...], **options: Unpack[_Options]) -> Histogram:
    collector = Histogram(name, text, _names(options), buckets=buckets)
    TABLE[name] = Row(name, Kind.HISTOGRAM, text, roles, collector, buckets=buckets, **options)
    return collector


def _names(options: _Options) -> tuple[str, ...]:
    return tuple(label.name for label in options.get("labels", ()))


def observe(of: Histogram, value: float, trace_id: str | None = None) -> None:
    """Add a value to a histogram. The id of the active trace becomes its exemplar."""
    of.observe(value, {"trace_id": trace_id} if trace_id else None)
