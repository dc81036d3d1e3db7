"""Writes docs/metrics.md from the table: `python -m shared.metrics.page`."""

from __future__ import annotations

from pathlib import Path

from shared.metrics import TABLE, Role, Row

PAGE = Path("docs/metrics.md")

_HEAD = """# Metrics

`/metrics` on the [private port](processes.md) of every process serves these metrics to Prometheus. Each process exports the rows
that name it, and no others. A counter counts what that process did since it started. The Python library adds `python_*` and
`process_*`.

- **Every series exists from the start, at 0.** That holds for every configured source, also for one that a reload adds. An alert
  on an increase therefore sees the first event.
- Two kinds of series begin later. Those marked *when known* exist while their value is known, because 0 would be a value. Those
  marked *with the first event* have a label whose values are not known beforehand.
- No label has a value that a client can choose, and none is secret.
- A client that accepts `application/openmetrics-text` gets OpenMetrics. With [traces](tracing.md), histograms then have
  exemplars with the id of a trace.

The table is in `shared/metrics/`. `python -m shared.metrics.page` writes this page from it, and a test compares them.

| metric | type | labels | process | what it says |
|---|---|---|---|---|
"""


def page() -> str:
    """Return the page in Markdown."""
    return _HEAD + "".join(f"{_line(row)}\n" for _, row in sorted(TABLE.items()))


def _line(row: Row) -> str:
    labels = ", ".join(f"`{label.name}`" for label in row.labels) or "none"
    roles = "all" if len(row.roles) == len(Role) else ", ".join(row.roles)
    return (
        f"| `{row.name}` | {row.kind} | {labels} | {roles} | {' '.join(filter(None, (row.help, row.remark, _beginning(row))))} |"
    )


def _beginning(row: Row) -> str:
    if row.is_measured:
        return "*When known.*"
    is_open = row.labels and not row.is_begun_later and not any(row.first_series(["any"]))
    return "*With the first event.*" if is_open else ""


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
