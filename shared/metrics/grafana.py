"""Writes deploy/grafana/*.json from the dashboards as data: `python -m shared.metrics.grafana`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from shared.metrics.dashboards import BOARDS
from shared.metrics.panels import Board, Form, Panel

DIRECTORY = Path("deploy/grafana")
SCHEMA_VERSION = 39
"""That of Grafana 11. Later ones migrate a dashboard when they load it."""

_WIDTH = 24
_SIZES = {Form.CURVES: (8, 8), Form.NUMBER: (4, 4)}
_DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}

Json = dict[str, object]


def dashboard(board: Board) -> str:
    """Return a dashboard as Grafana imports it."""
    content: Json = {
        "uid": f"callfold-{board.name}",
        "title": board.title,
        "description": board.about,
        "tags": ["callfold"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,  # one crosshair for all panels
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": list(_variables(board))},
        "links": [{"type": "dashboards", "title": "Callfold", "tags": ["callfold"], "asDropdown": True, "keepTime": True}],
        "panels": list(_panels(board)),
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _variables(board: Board) -> Iterator[Json]:
    yield {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "current": {}}
    expressions = [query.expression for section in board.sections for panel in section.panels for query in panel.queries]
    if any("$source" in expression for expression in expressions):
        query = "label_values(callfold_callbacks_total, source)"
        yield {
            "name": "source",
            "label": "Source",
            "type": "query",
            "datasource": _DATASOURCE,
            "definition": query,
            "query": {"query": query, "refId": "sources"},
            "refresh": 2,  # whenever the time range changes
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": "All", "value": "$__all"},
        }


def _panels(board: Board) -> Iterator[Json]:
    """Yield the panels from left to right, in lines as high as their highest panel."""
    number, top = 1, 0
    for section in board.sections:
        yield {
            "id": number,
            "type": "row",
            "title": section.title,
            "collapsed": False,
            "gridPos": {"x": 0, "y": top, "w": _WIDTH, "h": 1},
            "panels": [],
        }
        number, top, left, line_height = number + 1, top + 1, 0, 0
        for panel in section.panels:
            width, height = _SIZES[panel.form]
            if left + width > _WIDTH:
                top, left, line_height = top + line_height, 0, 0
            yield _panel(panel, number, {"x": left, "y": top, "w": width, "h": height})
            number, left, line_height = number + 1, left + width, max(line_height, height)
        top += line_height


def _panel(panel: Panel, number: int, place: Json) -> Json:
    return {
        "id": number,
        "type": panel.form,
        "title": panel.title,
        "description": panel.about,
        "datasource": _DATASOURCE,
        "gridPos": place,
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": _DATASOURCE,
                "expr": query.expression,
                "legendFormat": query.legend,
                "range": True,
            }
            for index, query in enumerate(panel.queries)
        ],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _options(panel),
    }


def _defaults(panel: Panel) -> Json:
    colors = ("yellow", "red")[-len(panel.limits) :] if panel.limits else ()
    steps: list[Json] = [{"color": "green", "value": None}]
    steps += [{"color": color, "value": limit} for color, limit in zip(colors, panel.limits, strict=True)]
    defaults: Json = {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": steps}}
    if panel.form is Form.CURVES:
        defaults["custom"] = {"lineWidth": 1, "fillOpacity": 10, "showPoints": "never"}
    return defaults


def _options(panel: Panel) -> Json:
    if panel.form is Form.NUMBER:
        return {"reduceOptions": {"calcs": ["lastNotNull"], "values": False}, "colorMode": "value", "graphMode": "area"}
    return {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}


if __name__ == "__main__":
    for each in BOARDS:
        (DIRECTORY / f"{each.name}.json").write_text(dashboard(each), "utf-8")
