"""Panels of dashboards as data: queries of rows of the table, with the unit and the description that the rows have.

The functions build the expressions, so that a panel names a metric and no PromQL. They refuse a name or label that no row has.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from shared.metrics.rows import SOURCE, TABLE, Kind, Role, Row

_UNITS = {"seconds": "s", "bytes": "bytes", "ratio": "percentunit", "timestamp_seconds": "s", "": "short"}
_A_SECOND = "cps"
_QUANTILES = (0.5, 0.95, 0.99)


class Form(StrEnum):
    """A type of panel, as Grafana names it."""

    CURVES = "timeseries"
    NUMBER = "stat"


@dataclass(frozen=True, slots=True)
class Query:
    """One expression of a panel, and the name of its curves."""

    expression: str
    legend: str
    unit: str
    about: str


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel. Its queries have one unit.

    Attributes:
        limits: values from which a number turns yellow and red; a single one is red.
    """

    title: str
    queries: tuple[Query, ...]
    form: Form = Form.CURVES
    limits: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if len({query.unit for query in self.queries}) != 1:
            raise ValueError(f'The panel "{self.title}" needs exactly one unit.')

    @property
    def unit(self) -> str:
        return self.queries[0].unit

    @property
    def about(self) -> str:
        return " ".join(dict.fromkeys(query.about for query in self.queries))


@dataclass(frozen=True, slots=True)
class Section:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Board:
    """A dashboard. `name` is that of its file."""

    name: str
    title: str
    about: str
    sections: tuple[Section, ...]


def rate(name: str, *by: str, role: Role | None = None, legend: str = "") -> Query:
    """Return the increase of a counter a second, summed by labels."""
    row = _row(name, Kind.COUNTER, by)
    inner = f"rate({name}{_selector(row)}[$__rate_interval]){_of(row, role)}"
    return Query(_aggregate("sum", by, inner), _legend(by, legend, row), _A_SECOND, row.help)


def level(name: str, *by: str, role: Role | None = None, legend: str = "", how: str = "max") -> Query:
    """Return the value of a gauge. Several processes can export one, so it is aggregated, by default to the maximum."""
    row = _row(name, Kind.GAUGE, by)
    inner = f"{name}{_selector(row)}{_of(row, role)}"
    return Query(_aggregate(how, by, inner), _legend(by, legend, row), _UNITS[row.unit], row.help)


def total(name: str) -> Query:
    """Return the sum of a gauge over its labels, if each process of a role exports the same values: those of the installation."""
    row = _row(name, Kind.GAUGE, ())
    one = _aggregate("max", tuple(label.name for label in row.labels), f"{name}{_selector(row)}")
    return Query(f"sum({one})", _legend((), "", row), _UNITS[row.unit], row.help)


def dead_letters() -> Query:
    """Return how many messages each queue of dead letters has."""
    row = _row("callfold_queue_messages", Kind.GAUGE, ("queue",))
    one = _aggregate("max", ("queue",), f'{row.name}{{queue=~".*[.]dead"}}')
    return Query(one, _legend(("queue",), "", row), _UNITS[row.unit], row.help)


def age(name: str, *by: str, legend: str = "") -> Query:
    """Return the seconds since the time in a gauge; 0 in it means that there is no time yet."""
    row = _row(name, Kind.GAUGE, by)
    inner = f"{name}{_selector(row)} > 0"
    return Query(f"time() - {_aggregate('max', by, inner)}", _legend(by, legend, row), "s", row.help)


def remaining(name: str, *by: str, legend: str = "") -> Query:
    """Return the seconds until the time in a gauge; 0 in it means that there is no time yet."""
    row = _row(name, Kind.GAUGE, by)
    return Query(f"{_aggregate('min', by, f'{name} > 0')} - time()", _legend(by, legend, row), "s", row.help)


def quantiles(name: str, *by: str, role: Role | None = None) -> tuple[Query, ...]:
    """Return the values that half of the observations of a histogram keep, and 95 and 99 of 100."""
    row = _row(name, Kind.HISTOGRAM, by)
    inner = _aggregate("sum", ("le", *by), f"rate({name}_bucket{_selector(row)}[$__rate_interval]){_of(row, role)}")
    return tuple(
        Query(
            f"histogram_quantile({quantile}, {inner})",
            " ".join([f"{100 * quantile:g} %", *(f"{{{{{label}}}}}" for label in by)]),
            _UNITS[row.unit],
            row.help,
        )
        for quantile in _QUANTILES
    )


def processes(role: Role) -> Query:
    """Return the number of processes of a role that answer."""
    expression = f'count(callfold_build_info{{role="{role}"}}) or vector(0)'
    return Query(expression, role, "short", f"Processes of the role {role} that Prometheus reaches.")


def alerts() -> Query:
    """Return the number of alerts that fire."""
    expression = 'count(ALERTS{alertname=~"Callfold.*", alertstate="firing"}) or vector(0)'
    return Query(expression, "alerts", "short", "Alerts of deploy/prometheus/rules.yml that fire. docs/runbook.md explains each.")


def curves(title: str, *queries: Query) -> Panel:
    """Return a panel with curves."""
    return Panel(title, queries)


def number(title: str, query: Query, *limits: float) -> Panel:
    """Return a panel with the last value as a number, which turns yellow and red at two limits, or red at one."""
    return Panel(title, (query,), Form.NUMBER, limits)


def _row(name: str, kind: Kind, by: tuple[str, ...]) -> Row:
    row = TABLE[name]
    known = {label.name for label in row.labels} | {"instance"}
    if row.kind is not kind or not known.issuperset(by):
        raise ValueError(f"{name} is a {row.kind} with the labels {sorted(known)}, so it has no {kind} by {by}.")
    return row


def _selector(row: Row) -> str:
    return f'{{{SOURCE.name}=~"$source"}}' if row.has_source else ""


def _of(row: Row, role: Role | None) -> str:
    """Select the targets of a role, if several roles export the row."""
    if role is None or len(row.roles) == 1:
        return ""
    return f' * on (job, instance) group_left () callfold_build_info{{role="{role}"}}'


def _aggregate(how: str, by: tuple[str, ...], inner: str) -> str:
    return f"{how} by ({', '.join(by)}) ({inner})" if by else f"{how}({inner})"


def _legend(by: tuple[str, ...], legend: str, row: Row) -> str:
    named = " ".join(f"{{{{{label}}}}}" for label in by)
    return " ".join(filter(None, (legend, named))) or row.name.removeprefix("callfold_")
