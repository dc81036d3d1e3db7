"""Reads expressions of alerts and dashboards, as far as the names in them go."""

from __future__ import annotations

import re

from shared.metrics import TABLE, Kind

NAME = re.compile(r"\b(callfold_\w+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)"([^"]*)"')
_OF_TARGETS = {"job", "instance"}


def faults_of(expression: str) -> list[str]:
    """Name the metrics, labels and values of an expression that no process exports."""
    found = []
    for name, selector in NAME.findall(re.sub(r'"callfold_\w+"', "", expression)):
        row = TABLE.get(name) or TABLE.get(re.sub("_(bucket|sum|count)$", "", name))
        if row is None or (row.name != name and row.kind is not Kind.HISTOGRAM):
            found.append(name)
            continue
        labels = {label.name: label.values for label in row.labels}
        for label, operator, value in _MATCHER.findall(selector):
            if label not in labels.keys() | _OF_TARGETS:
                found.append(f"{name}: {label}")
            elif labels.get(label) and not value.startswith("$"):
                values = [value] if operator in {"=", "!="} else value.split("|")
                found += [f"{name}: {label}={each}" for each in values if each not in labels[label]]
    return found
