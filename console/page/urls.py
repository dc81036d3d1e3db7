"""URLs of the pages. Their parts come from outside, so each one is percent-encoded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote, urlencode

from shared.domain.ids import CALL_REF, SOURCE_NAME

WEBHOOK_NAME_CHARACTERS = 64  # names of webhooks are shorter
_CALL = re.compile(f"({SOURCE_NAME.pattern})/({CALL_REF.pattern})")


def call_url(source: str, call: str) -> str:
    return f"/ui/calls/{quote(source, safe='')}/{quote(call, safe='')}"


def recording_url(source: str, name: str, call: str) -> str:
    return f"/recordings/{quote(source, safe='')}/{quote(name, safe='')}?{urlencode({'call': call})}"


def waveform_url(source: str, name: str, call: str) -> str:
    return f"/recordings/{quote(source, safe='')}/{quote(name, safe='')}/waveform.svg?{urlencode({'call': call})}"


def preview_url(source: str, name: str, call: str) -> str:
    return f"/recordings/{quote(source, safe='')}/{quote(name, safe='')}/preview?{urlencode({'call': call})}"


def webhook_url(name: str) -> str:
    return f"/webhooks/{quote(name[:WEBHOOK_NAME_CHARACTERS], safe='')}"


def with_query(path: str, values: Mapping[str, str | None]) -> str:
    """Add the parameters that are not empty to a path."""
    parameters = {name: value for name, value in values.items() if value}
    return f"{path}?{urlencode(parameters)}" if parameters else path


def search_url(text: str) -> str:
    """Return the target of the search box: `acme/513` opens that call, other text searches for calls by number."""
    search = text.strip()
    call = _CALL.fullmatch(search)
    if call:
        return call_url(call[1], call[2])
    return with_query("/ui/calls", {"number": search if "*" in search or not search else f"*{search}*"})
