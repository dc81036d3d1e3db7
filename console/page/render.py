"""The pages as HTML: one function per page, from its data to text. No I/O except reading templates, no clock.

Jinja2's autoescape is on for every template, and none marks a value as safe. The pages work within
`CONTENT_SECURITY_POLICY`: no inline script, no inline style, nothing from other hosts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice

import orjson
from jinja2 import Environment, PackageLoader, StrictUndefined

from console.call_query import AnyState, CallQuery, JsonObject
from console.live.snapshot import Snapshot
from console.page import labels, text, urls
from console.page.assets import asset_url
from console.page.call_models import AnnotationRow, CallPage, TimelineRow
from console.page.link_explanation import explain_link
from console.page.live_view import live_view
from console.page.models import (
    AdapterPage,
    CallsPage,
    ConfirmPage,
    DeadLettersPage,
    ErrorPage,
    LoginPage,
    Viewer,
)
from console.page.parties import parties_of, people_of, ring_seconds_of
from console.page.sparkline import HEIGHT, WIDTH
from console.page.text import moved
from console.page.timeline import MAX_LANES, Picture, leg_names, picture
from console.page.webhook_models import WebhookPage, WebhooksPage
from console.safe_text import plain
from shared.domain.closing import Outcome
from shared.domain.leg_event import CallType
from shared.masking import mask_credentials

_POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self'",
    "media-src": "'self'",
    "connect-src": "'self'",
    "form-action": "'self'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
}
CONTENT_SECURITY_POLICY = "; ".join(f"{directive} {value}" for directive, value in _POLICY.items())
CSV_ROWS = 500
# Limits of the page of a call, enough for nearly every call. The command line and the API show the rest.
_MAX_EVENTS = 100
_MAX_FACTS = 500
_MAX_IGNORED = 50
_MAX_ANNOTATIONS = 8
# Of the texts of all annotations together, so that the page stays small. Each shows some.
_TEXT_CHARACTERS, _LEAST_CHARACTERS = 6_000, 200
_MAX_DELIVERIES = 50
_OPTIONAL_FIELDS = ("call_type", "ended_by", "queue", "ignored", "annotations")  # records of earlier releases lack them
MAX_RECORDINGS = MAX_LANES
_MAX_FORM_CHARACTERS = 300  # of a search value that is shown again; valid values are shorter
_STATES: tuple[str, ...] = AnyState.__args__  # type: ignore[attr-defined]  # the values of a Literal


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("console.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    filters = (plain, text.clip, text.body, text.clock, text.precise, text.moment, text.duration, text.delay, text.size)
    environment.filters |= {function.__name__: function for function in filters}
    environment.filters |= {
        "thousands": text.number,
        "plain_lines": text.plain_lines,
        "name_choices": _name_choices,
        "state_choices": _state_choices,
        "outcome_choices": _outcome_choices,
        "delay_s": _delay_s,
    }
    environment.globals |= {
        "asset": asset_url,
        "call_url": urls.call_url,
        "recording_url": urls.recording_url,
        "waveform_url": urls.waveform_url,
        "preview_url": urls.preview_url,
        "webhook_url": urls.webhook_url,
        "with_query": urls.with_query,
        "labels": labels,
        "spark_box": (WIDTH, HEIGHT),
    }
    return environment


def _name_choices(names: Iterable[str], chosen: str) -> list[tuple[str, str]]:
    """Make choices of names. The chosen one stays in the list even if it is unknown."""
    return [(name, name) for name in dict.fromkeys([*names, *filter(None, [chosen])])]


def _state_choices(states: Iterable[str]) -> list[tuple[str, str]]:
    return [(state, labels.status(state)) for state in states]


def _outcome_choices(outcomes: Iterable[str]) -> list[tuple[str, str]]:
    return [(name, labels.outcome(name)) for name in outcomes]


def _delay_s(row: TimelineRow) -> float | None:
    """Return the seconds from an event to the receipt of its callback."""
    return text.seconds_between(row.happened_at, row.received_at) if row.happened_at else None


_ENVIRONMENT = _environment()


def compile_templates() -> None:
    """Compile all templates, which takes long: the first request of a page must not delay others."""
    for name in _ENVIRONMENT.list_templates(extensions=["html"]):
        _ENVIRONMENT.get_template(name)


def _render(template: str, viewer: Viewer | None, current: str, values: Mapping[str, object]) -> str:
    return _ENVIRONMENT.get_template(template).render(viewer=viewer, current=current, **values)


def live_fragment(snapshot: Snapshot) -> str:
    """Render the part of the live page that `/live` sends once a second as the event `live`."""
    return _ENVIRONMENT.get_template("_live.html").render(view=live_view(snapshot))


def live_page(viewer: Viewer, snapshot: Snapshot) -> str:
    return _render("live.html", viewer, "live", {"view": live_view(snapshot)})


def calls_page(viewer: Viewer, page: CallsPage) -> str:
    form_values = {name: page.form_values.get(name, "")[:_MAX_FORM_CHARACTERS] for name in CallQuery.model_fields}
    values = {
        "page": page,
        "form_values": form_values,
        "states": _STATES,
        "outcomes": list(Outcome),
        "types": list(CallType),
        "next_url": urls.with_query("/ui/calls", form_values | {"cursor": page.next_cursor}) if page.next_cursor else None,
        "csv_url": urls.with_query("/ui/calls.csv", form_values | {"cursor": None, "limit": None}),
        "csv_rows": CSV_ROWS,
        "other_url": urls.with_query("/ui/calls", form_values | {"state": page.other_state, "cursor": None}),
    }
    return _render("calls.html", viewer, "calls", values)


def call_page(viewer: Viewer, page: CallPage) -> str:
    record, outcome = page.record, page.record["outcome"]
    timeline = page.timeline[:_MAX_EVENTS]
    values = {
        "page": page,
        "picture": _picture(page, timeline),
        "record_text": _pretty({name: value for name, value in record.items() if name != "annotations"}),
        "outcome": outcome,
        "rule": labels.closing_rule(outcome, record["close_reason"], page.legs) if outcome else None,
        "leg_names": dict(zip((leg.call_id for leg in page.legs), leg_names(page.legs), strict=True)),
        "parties": parties_of(record, page.call),
        "people": people_of(record),
        "rang": ring_seconds_of(record),
        "known": {name: record.get(name) for name in _OPTIONAL_FIELDS},
        "ignored": list(record.get("ignored") or ())[:_MAX_IGNORED],
        "annotations": _annotations(record),
        "legs": page.legs[:MAX_LANES],
        "timeline": timeline,
        "deliveries": page.deliveries[:_MAX_DELIVERIES],
        "recordings": page.recordings[:MAX_RECORDINGS],
        "facts": dict(islice(page.facts.items(), _MAX_FACTS)),
    }
    return _render("call.html", viewer, "calls", values)


def _annotations(record: JsonObject) -> list[AnnotationRow]:
    """Return the annotations that are shown, each with its share of the characters."""
    rows, left = [], _TEXT_CHARACTERS
    for annotation in (record.get("annotations") or ())[:_MAX_ANNOTATIONS]:
        row = AnnotationRow.of(annotation, max(left, _LEAST_CHARACTERS))
        left -= min(len(row.text), row.shown_characters)
        rows.append(row)
    return rows


def _picture(page: CallPage, timeline: Sequence[TimelineRow]) -> Picture | None:
    """Draw the call on the axis of its record, which can be that of the PBX."""
    ahead_s = page.pbx_ahead_seconds or 0
    rows = [replace(row, received_at=moved(row.received_at, ahead_s)) for row in timeline]
    return picture(page.legs, rows, moved(page.at, ahead_s), page.record["started_at"])


def _pretty(record: JsonObject) -> str:
    return orjson.dumps(record, option=orjson.OPT_INDENT_2).decode()


def dead_letters_page(viewer: Viewer, page: DeadLettersPage) -> str:
    values = {
        "page": page,
        "endpoint": (page.endpoint or "")[: urls.WEBHOOK_NAME_CHARACTERS],
        "endpoints": [name[: urls.WEBHOOK_NAME_CHARACTERS] for name in page.endpoints],
    }
    return _render("dead_letters.html", viewer, "dead-letters", values)


def confirm_page(viewer: Viewer, page: ConfirmPage) -> str:
    """Render the confirmation that precedes a redrive or drop."""
    return _render("confirm.html", viewer, "dead-letters", {"page": page})


def webhooks_page(viewer: Viewer, page: WebhooksPage) -> str:
    return _render("webhooks.html", viewer, "webhooks", {"page": page})


def webhook_page(viewer: Viewer, page: WebhookPage) -> str:
    """Render one webhook."""
    return _render("webhook.html", viewer, "webhooks", {"page": page})


def adapter_page(viewer: Viewer, page: AdapterPage) -> str:
    link = page.link if page.link is None or viewer.is_operator else mask_credentials(page.link)
    values = {
        "page": page,
        "link": link,
        "pasted": mask_credentials(page.pasted) if page.pasted else None,
        "explanation": explain_link(page.parsed) if page.parsed else None,
    }
    return _render("adapter.html", viewer, "adapter", values)


def login_page(page: LoginPage) -> str:
    return _render("login.html", None, "login", {"page": page})


def error_page(viewer: Viewer | None, page: ErrorPage) -> str:
    return _render("error.html", viewer, "error", {"page": page})
