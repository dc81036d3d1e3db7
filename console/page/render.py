"""The pages as HTML: one function each, from what it shows to text. No I/O beyond the templates, no clock.

Everything is escaped by Jinja2's autoescape, which is on for every template; none marks a value as safe. The pages need no more
than `CONTENT_SECURITY_POLICY` lets them have: no inline script, no inline style, nothing from elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice

import orjson
from jinja2 import Environment, PackageLoader, StrictUndefined

from console.call_query import AnyState, CallQuery, JsonObject
from console.live.snapshot import Snapshot
from console.page import links, text, words
from console.page.assets import asset_url
from console.page.live import live_view
from console.page.models import (
    AdapterPage,
    CallPage,
    CallsPage,
    ErrorPage,
    LettersPage,
    LoginPage,
    RedrivePage,
    TimelineRow,
    Viewer,
)
from console.page.sparkline import HEIGHT, WIDTH
from console.page.timeline import MOST_LANES, leg_names, picture
from console.page.understanding import understand
from console.safe_text import plain
from shared.domain.call import Outcome
from shared.masking import mask_credentials

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
CSV_ROWS = 500
# Shown on the page of a call: usually all there is. The command line and the API have everything of a call that has more.
_MOST_EVENTS = 100
_MOST_FACTS = 500
_MOST_ASKED = 300  # characters of a search's value that are shown again; more than any may have
_STATES: tuple[str, ...] = AnyState.__args__  # type: ignore[attr-defined]  # a Literal tells its values only so


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
        "pairs": _pairs,
        "state_words": _state_words,
        "outcome_words": _outcome_words,
        "lateness": _lateness,
    }
    environment.globals |= {
        "asset": asset_url,
        "call_url": links.call_url,
        "recording_url": links.recording_url,
        "waveform_url": links.waveform_url,
        "with_query": links.with_query,
        "words": words,
        "spark_box": (WIDTH, HEIGHT),
    }
    return environment


def _pairs(names: Iterable[str], chosen: str) -> list[tuple[str, str]]:
    """Make choices of names; one that was asked for stays in the list, whether it is known or not."""
    return [(name, name) for name in dict.fromkeys([*names, *filter(None, [chosen])])]


def _state_words(states: Iterable[str]) -> list[tuple[str, str]]:
    return [(state, words.status(state)) for state in states]


def _outcome_words(outcomes: Iterable[str]) -> list[tuple[str, str]]:
    return [(name, words.outcome(name)) for name in outcomes]


def _lateness(row: TimelineRow) -> float | None:
    """Say how much later a callback came than what it tells of, in seconds."""
    return text.seconds_between(row.told_at, row.received_at) if row.told_at else None


_ENVIRONMENT = _environment()


def _render(template: str, viewer: Viewer | None, current: str, values: Mapping[str, object]) -> str:
    return _ENVIRONMENT.get_template(template).render(viewer=viewer, current=current, **values)


def live_fragment(snapshot: Snapshot) -> str:
    """Write the moving part of the live page: what `/live` sends once a second as the event `live`."""
    return _ENVIRONMENT.get_template("_live.html").render(view=live_view(snapshot))


def live_page(viewer: Viewer, snapshot: Snapshot) -> str:
    return _render("live.html", viewer, "live", {"view": live_view(snapshot)})


def calls_page(viewer: Viewer, page: CallsPage) -> str:
    asked = {name: page.asked.get(name, "")[:_MOST_ASKED] for name in CallQuery.model_fields}
    values = {
        "page": page,
        "asked": asked,
        "states": _STATES,
        "outcomes": list(Outcome),
        "next_url": links.with_query("/ui/calls", asked | {"cursor": page.next_cursor}) if page.next_cursor else None,
        "csv_url": links.with_query("/ui/calls.csv", asked | {"cursor": None, "limit": None}),
        "csv_rows": CSV_ROWS,
    }
    return _render("calls.html", viewer, "calls", values)


def call_page(viewer: Viewer, page: CallPage) -> str:
    record, outcome = page.record, page.record["outcome"]
    timeline = page.timeline[:_MOST_EVENTS]
    values = {
        "page": page,
        "picture": picture(page.legs, timeline, page.at, record["started_at"]),
        "record_text": _pretty(record),
        "outcome": outcome,
        "rule": words.rule(outcome, record["close_reason"], page.legs) if outcome else None,
        "leg_names": dict(zip((leg.call_id for leg in page.legs), leg_names(page.legs), strict=True)),
        "legs": page.legs[:MOST_LANES],
        "timeline": timeline,
        "recordings": page.recordings[:MOST_LANES],
        "facts": dict(islice(page.facts.items(), _MOST_FACTS)),
    }
    return _render("call.html", viewer, "calls", values)


def _pretty(record: JsonObject) -> str:
    return orjson.dumps(record, option=orjson.OPT_INDENT_2).decode()


def letters_page(viewer: Viewer, page: LettersPage) -> str:
    return _render("letters.html", viewer, "letters", {"page": page})


def redrive_page(viewer: Viewer, page: RedrivePage) -> str:
    """Write the question that comes before letters are put back."""
    return _render("redrive.html", viewer, "letters", {"page": page})


def adapter_page(viewer: Viewer, page: AdapterPage) -> str:
    link = page.link if page.link is None or viewer.is_operator else mask_credentials(page.link)
    values = {
        "page": page,
        "link": link,
        "pasted": mask_credentials(page.pasted) if page.pasted else None,
        "understood": understand(page.understood) if page.understood else None,
    }
    return _render("adapter.html", viewer, "adapter", values)


def login_page(page: LoginPage) -> str:
    return _render("login.html", None, "login", {"page": page})


def error_page(viewer: Viewer | None, page: ErrorPage) -> str:
    return _render("error.html", viewer, "error", {"page": page})
