"""Where the pages are: addresses built of names that come from outside, each part percent-encoded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote, urlencode

from shared.domain.ids import CALL_REF, SOURCE_NAME

_CALL = re.compile(f"({SOURCE_NAME.pattern})/({CALL_REF.pattern})")


def call_url(source: str, call: str) -> str:
    return f"/ui/calls/{quote(source, safe='')}/{quote(call, safe='')}"


def recording_url(source: str, name: str, call: str) -> str:
    return f"/recordings/{quote(source, safe='')}/{quote(name, safe='')}?{urlencode({'call': call})}"


def waveform_url(source: str, name: str, call: str) -> str:
    return f"/recordings/{quote(source, safe='')}/{quote(name, safe='')}/waveform.svg?{urlencode({'call': call})}"


def with_query(path: str, values: Mapping[str, str | None]) -> str:
    """Add parameters to a path; those that are empty are left out."""
    given = {name: value for name, value in values.items() if value}
    return f"{path}?{urlencode(given)}" if given else path


def found_url(text: str) -> str:
    """Say where the search box leads: `acme/513` to that call, anything else to the calls with such a number."""
    wanted = text.strip()
    named = _CALL.fullmatch(wanted)
    if named:
        return call_url(named[1], named[2])
    return with_query("/ui/calls", {"number": wanted if "*" in wanted or not wanted else f"*{wanted}*"})
