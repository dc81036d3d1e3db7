"""Puts a RecordingURL together that the sender did not escape, so that the query cut it at its first `&`.

    CallID=7&RecordingURL=https://pbx/_cros_/master/?uid=form_faster_downloadcall&target=self&nId=7&CallerID=1001

Its pieces are the parameters after it that the adapter does not explain. They are escaped here, as they should have been. If it
may mean another link, it is marked (`IN_DOUBT`), so that an answer to it says nothing about the recording.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import quote, unquote_plus, unquote_to_bytes

from shared.domain.adapter_link import SECRET_PARAMETER, Adapter, Placeholder, tidy_name
from shared.domain.recording_link import IN_DOUBT
from shared.percent_encoding import bytes_of

_RECORDING_URL = Placeholder.RECORDING_URL.value
_NEEDED = frozenset(
    {
        Placeholder.CALL_TYPE_NAME.value,
        Placeholder.CALL_TYPE_CODE.value,
        Placeholder.EVENT_NAME.value,
        Placeholder.EVENT_CODE.value,
        Placeholder.CALL_ID.value,
        Placeholder.REQUEST_ID.value,
        _RECORDING_URL,
    }
)
"""Placeholders that are never given up for the pieces of a URL."""
_MAX_BYTES = 8 * 1024
_MAX_CHARACTERS = 3 * _MAX_BYTES
_ESCAPE = re.compile("%([0-9A-Fa-f]{2})")
_ESCAPED_TWICE = re.compile("%25(?=[0-9A-Fa-f]{2})")
_OWN_PERCENT = re.compile("%25(?![0-9A-Fa-f]{2})")
_SEPARATORS = frozenset("%&=?+#;/:")
_QUERY_BEGIN = re.compile(r"\?|%(?:25)*3[Ff]")
_ESCAPED_EQUALS = re.compile("%(?:25)*3[Dd]")
# The begin of a second parameter, with an escaped `&`.
_ESCAPED_PAIR = re.compile("%(?:25)*26[^&=%]+(?:=|%(?:25)*3[Dd])")
# Blanks, line ends, quotes and angle brackets around the URL.
_WRAPPERS = frozenset({"%20", "%09", "%0A", "%0D", "%22", "%27", "%3C", "%3E"})


class WholeUrls(NamedTuple):
    """The parts of a query in which every RecordingURL is one escaped part.

    Attributes:
        in_doubt: parameters of the adapter that may be pieces of a RecordingURL. They are no parts.
    """

    parts: list[str]
    in_doubt: list[str]


class _End(NamedTuple):
    """The end of a RecordingURL.

    Attributes:
        pieces: how many of the parts behind it belong to it.
        is_in_order: the order of the adapter link says so.
        is_clear: it says so, or no name of the adapter follows.
        in_doubt: which of the pieces may be parameters of the adapter.
    """

    pieces: int
    is_in_order: bool = False
    is_clear: bool = False
    in_doubt: Sequence[int] = ()


class _Value(NamedTuple):
    """A RecordingURL as the value in a query. If it is doubtful, it may mean another link."""

    text: str
    is_doubtful: bool


def with_whole_urls(adapter: Adapter, parts: list[str]) -> WholeUrls:
    """Put each RecordingURL of a query together with its pieces."""
    begins = [adapter.meaning(_name(part)) == _RECORDING_URL and _may_be_cut(part) for part in parts]
    if not any(begins):
        return WholeUrls(parts, [])
    names = _own_names(adapter, parts)
    result = WholeUrls([], [])
    number = 0
    while number < len(parts):
        part, following = parts[number], parts[number + 1 :]
        number += 1
        if begins[number - 1]:
            end = _end(adapter, names, number)
            part, count = _whole(part, following, end, is_name_next=number < len(parts) and names[number] is None)
            result.in_doubt.extend(following[index] for index in end.in_doubt if index < count)
            number += count
        result.parts.append(part)
    return result


def _may_be_cut(part: str) -> bool:
    """Return whether a RecordingURL was not escaped, or not all of it."""
    url = part.partition("=")[2]
    return "://" in url or "?" in url or "=" in url


def _own_names(adapter: Adapter, parts: Sequence[str]) -> list[str | None]:
    """Return the names as the adapter spells them, None for those that it does not have.

    If it has some in their own letter case, one in another letter case is none of its names.
    """
    names = [tidy_name(_name(part)) for part in parts]
    own = {*adapter.meanings, *adapter.constants, SECRET_PARAMETER}
    if not own.isdisjoint(names):
        return [name if name in own else None for name in names]
    by_folded = {name.strip().casefold(): name for name in own}
    return [by_folded.get(name.casefold()) for name in names]


def _end(adapter: Adapter, names: Sequence[str | None], begin: int) -> _End:
    """Find the end of the RecordingURL before the part `begin`.

    FocalScope sends parameters in the order of the adapter link. If all that the link has after the RecordingURL are there, in
    this order, everything before them is a piece, whatever its name. If the adapter has none of the names, all are pieces.
    Otherwise the pieces go up to the last name that the adapter does not have, but not beyond what the callback needs.
    """
    sent, own, following = names[: begin - 1], adapter.name_of(_RECORDING_URL), list(names[begin:])
    is_unsent = [
        name is not None and name not in sent and (name == own or name not in following[at + 1 :])
        for at, name in enumerate(following)
    ]
    expected = list(adapter.order[adapter.order.index(own) + 1 :]) if own in adapter.order else []
    size = len(expected)
    last = len(following) - size
    while expected and last >= 0 and following[last : last + size] != expected:
        last -= 1
    if expected and last >= 0 and not any(is_unsent[last + size :]):
        return _End(last, is_in_order=True, is_clear=True)
    if not any(is_unsent):
        return _End(len(following), is_clear=True)
    needed = (at for at, name in enumerate(following) if is_unsent[at] and adapter.meanings.get(str(name)) in _NEEDED)
    limit = next(needed, len(following))
    count = next((at + 1 for at in range(limit - 1, -1, -1) if not is_unsent[at]), 0)
    return _End(count, in_doubt=[at for at in range(count) if is_unsent[at]])


def _whole(part: str, following: Sequence[str], end: _End, *, is_name_next: bool) -> tuple[str, int]:
    """Return a RecordingURL as one escaped part, and how many of the parts that follow it has.

    `is_name_next` says that the adapter does not have the name of the next part.
    """
    name, _, url = part.partition("=")
    if len(url) > _MAX_CHARACTERS:
        return part, 0
    begin = _QUERY_BEGIN.search(url)
    query = url[begin.end() :] if begin is not None else ""
    if "=" not in query and _ESCAPED_EQUALS.search(query):
        return part, 0  # who escapes this escapes `&` as well
    mark = quote(IN_DOUBT, safe="")
    is_cut = end.is_in_order and end.pieces > 0
    if not is_cut and not _has_own_escapes(url) and _ESCAPED_PAIR.search(query):
        return f"{part}{mark}" if is_name_next else part, 0
    count = 0 if begin is None else end.pieces
    value = _read("&".join((url, *following[:count])))
    # `&` is rare in a path, but possible.
    is_doubtful = value.is_doubtful or (is_name_next if begin is None else not end.is_clear)
    if len(unquote_to_bytes(value.text)) > _MAX_BYTES - len(IN_DOUBT):
        return f"{name}={mark}" if count or is_doubtful else part, count
    return f"{name}={value.text}{mark if is_doubtful else ''}", count


def _read(url: str) -> _Value:
    """Read a URL whose `://`, `?` or `=` was not escaped: whether its escapes are its own, or the sender's.

    A sender that escapes a character escapes each one of these, and `%`.
    """
    url = _unwrapped(url)
    own = _Value(quote(bytes_of(url), safe=""), is_doubtful=False)
    if _has_own_escapes(url):
        return own
    escaped = _escaped(url)
    sent = _Value(url.replace("&", "%26"), is_doubtful=False)
    if not escaped.isdisjoint("/:"):  # without these it is no URL
        return sent
    if "?" in escaped:
        return sent._replace(is_doubtful="=" not in url)
    if "&" in escaped:
        return sent._replace(is_doubtful=True)
    if "%" in escaped:
        return _Value(quote(bytes_of(_ESCAPED_TWICE.sub("%", url)), safe=""), is_doubtful=True)
    return own._replace(is_doubtful=not escaped.isdisjoint("+#;") or "+" in url.partition("?")[0])


def _unwrapped(url: str) -> str:
    begin, end = 0, len(url)
    while begin < end and (width := _width_of_wrapper(url[begin : begin + 3])):
        begin += width
    while begin < end and (width := _width_of_wrapper(url[end - 1 : end]) or _width_of_wrapper(url[max(begin, end - 3) : end])):
        end -= width
    return url[begin:end]


def _width_of_wrapper(text: str) -> int:
    return 1 if text[:1] == "+" else 3 if text.upper() in _WRAPPERS else 0


def _has_own_escapes(url: str) -> bool:
    """Return whether a character that matters is there both escaped and unescaped. Then the sender escaped nothing.

    A `%25` that begins no escape is the URL's own as well: who escapes a URL finds `%` only in escapes.
    """
    return _OWN_PERCENT.search(url) is not None or not _escaped(url).isdisjoint(_ESCAPE.sub("", url))


def _escaped(url: str) -> frozenset[str]:
    """Return which of the characters that matter are escaped in a URL."""
    return _SEPARATORS.intersection(chr(int(digits, 16)) for digits in _ESCAPE.findall(url))


def _name(part: str) -> str:
    name = part.partition("=")[0]
    return unquote_plus(name) if "%" in name or "+" in name else name
