"""What `/metrics` of a process has, and what the table says that it has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client.parser import text_string_to_metric_families

from shared.metrics import TABLE, Kind, Role

Series = tuple[str, frozenset[tuple[str, str]]]


def series_of(text: str) -> dict[Series, float]:
    """Read the series of Callfold, with a histogram as its `_count`."""
    series: dict[Series, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            is_part = family.type == "histogram" and not sample.name.endswith("_count")
            if family.name.startswith("callfold_") and not is_part:
                series[sample.name, frozenset(sample.labels.items())] = sample.value
    return series


def names_of(series: Iterable[Series]) -> set[str]:
    """Return the rows that the series belong to."""
    return {name if name in TABLE else name.removesuffix("_count") for name, _ in series}


def first_series(role: Role, sources: Iterable[str]) -> set[Series]:
    """Return the series that a process has from the start, by the table."""
    expected: set[Series] = set()
    for row in TABLE.values():
        if role in row.roles and not row.is_measured and not row.is_begun_later:
            name = f"{row.name}_count" if row.kind is Kind.HISTOGRAM else row.name
            labels = [label.name for label in row.labels]
            expected |= {
                (name, frozenset(zip(labels, values, strict=True))) for values in (row.first_series(sources) if labels else [()])
            }
    return expected


def role_of(series: Mapping[Series, float]) -> Role:
    (labels,) = [dict(labels) for name, labels in series if name == "callfold_build_info"]
    return Role(labels["role"])
