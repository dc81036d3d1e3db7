"""Masks credentials in text for users and logs: in links, queries, JSON, headers, cookies and tracebacks.

The scan stops at each operator: `=`, `:`, or the comma of a pair, percent-encoded any number of times. If the name before it is
that of a credential, the value after it is masked. A parser would miss credentials in free text, such as JSON within JSON,
`repr` output, headers, and links that are encoded twice or cut off.

An attacker can choose the text, so the time must grow only in proportion to its length. No search goes past the end of the value
that it finds, and no pattern can match a text in more than one way.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from functools import cached_property, lru_cache
from typing import NamedTuple

from shared.percent_encoding import decode_repeatedly

MASK = "***"

_NAMES = frozenset({"sid", "session", "pwd", "pass", "key", "auth", "sig", "cookies"})
_ENDINGS = (
    "token", "sectok", "password", "passwd", "passphrase", "secret", "secrets", "signature", "credential", "credentials",
    "sessionid", "sessid", "apikey", "accesskey", "privatekey", "secretkey", "consolekey", "viewerkey",
)  # fmt: skip
# These are credentials in a link, but usually not in JSON or prose.
_ORDINARY = frozenset({"key", "pass"})
# The values of these are masked to the end of the line.
_HEADERS = ("authorization", "cookie")
# A text without any of these has no credential. An escape could hide one of the words.
_SUSPECT = re.compile(r"%|@|tok|pass|pwd|secret|sig|cred|sess|key|auth|sid|cookie|bearer", re.IGNORECASE)

_OPERATOR = re.compile(r"[=:,]|%(?P<depth>(?:25)*)(?:3D|3A)", re.IGNORECASE)
# Longer than any name, even if each of its characters is encoded.
_BEFORE_CHARACTERS = 200
_NAME_BACKWARDS = re.compile(r"[\w.~$\[\]-]+")
_PAIR = re.compile(r"[(\[]\s*b?\\*[\"']$")
_OPENING = re.compile(r"\s*b?(?P<escapes>\\*)(?P<quote>[\"'])")
_ENCODED_QUOTED = re.compile(r"(?:%(?:25)*20|\+|\s)*(%(?:25)*22)((?:(?!\1)[^\s&\"'])*)", re.IGNORECASE)
_EMPTY = re.compile(r"\s*(?:null|true|false|None|True|False)(?=[\s,}\])]|$)")
_SCHEME = r"(?:(?:bearer|basic|digest|negotiate|token)(?:\s|\+|%(?:25)*20)+)?"
# A parameter to its end. A quote does not end it if more of the value follows, nor does an `&` that is encoded more deeply.
_MORE = r"[\w%+/.~-]"
_PARAMETER = re.compile(rf"\s*({_SCHEME}(?:[^&\s\\\"']++|\\++(?![\"'](?!{_MORE}))|[\"'](?={_MORE}))*)", re.IGNORECASE)
_AND = re.compile(r"%(?P<depth>(?:25)*)26", re.IGNORECASE)
_BARE = re.compile(r"\s*([^\s,}\])\"']*)")
_LIST = re.compile(r"\s*\[")
_BETWEEN = re.compile(r"[^\]\"'\\]*")
_END = r"\s*(?:$|[}\])>]|,\s*[\\\"'(\[b])"
_LINE = re.compile(rf"\s*((?:[^\r\n\\\"'%]++|\\++(?![rn]|[\"']{_END})|[\"'](?!{_END})|%(?!(?:25)*0[AD]))*)", re.IGNORECASE)
_BEARER = re.compile(r"\b(bearer(?:\s|\+|%(?:25)*20)+)[^\s\"'\\,;&)<>\]}*]+", re.IGNORECASE)
_USER_INFO = re.compile(r"((?:\\{0,9}+/){2})[^/?#\s\"'\\]*@")
_CLOSING = {quote: re.compile(rf"(?<!\\)(\\*+){quote}") for quote in "\"'"}
# A link that is encoded more often is masked to its end.
_DEEPEST = 2 * 16
_ENCODED_SLASHES = re.compile(r"%(?:25)*2F%(?:25)*2F", re.IGNORECASE)
_LINK_PART = re.compile(r"%(?P<depth>(?:25)*)(?P<code>2F|3F|23|26|40)|[@/?#&\s\"'\\]", re.IGNORECASE)


class _Name(NamedTuple):
    """The name of a credential before an operator.

    Attributes:
        plain: the name, in lower case.
        closing: the quote after the name, with its escapes.
        before: the text before the name.
    """

    plain: str
    closing: str
    before: str

    @property
    def is_in_pair(self) -> bool:
        return _PAIR.search(self.before) is not None


class _Separators:
    """Positions of the percent-encoded `&` in a text, searched on first use."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._by_depth: dict[int, list[int]] = {}

    @cached_property
    def _all(self) -> list[tuple[int, int]]:
        return [(match.start(), len(match["depth"])) for match in _AND.finditer(self._text)]

    def next(self, at: int, depth: int) -> int:
        """Return the position of the next `&` that is encoded at most `depth` deep, or the end of the text."""
        depth = min(depth, _DEEPEST)
        if depth not in self._by_depth:
            self._by_depth[depth] = [start for start, start_depth in self._all if start_depth <= depth]
        starts = self._by_depth[depth]
        index = bisect_left(starts, at)
        return starts[index] if index < len(starts) else len(self._text)


def mask_credentials(text: str) -> str:
    """Mask all credentials in a text: `sectok`, passwords, sessions, keys, cookies, and the user part of URLs."""
    if not _SUSPECT.search(text):  # true of most values of callbacks
        return text
    masked: list[str] = []
    done = 0
    for start, end, mask in _values(text):
        masked += (text[done:start], mask)
        done = end
    text = "".join((*masked, text[done:]))
    return _mask_encoded_user_info(_USER_INFO.sub(rf"\1{MASK}@", _BEARER.sub(rf"\1{MASK}", text)))


def mask_value(name: str, value: str) -> str:
    """Mask a named value: all of it if the name is that of a credential, else the credentials in it."""
    return MASK if value and is_credential(name) else mask_credentials(value)


def is_credential(name: str) -> bool:
    """Return whether a parameter, field or header of this name is a credential."""
    return _is_credential(name) if len(name) <= _BEFORE_CHARACTERS else _is_credential.__wrapped__(name)


@lru_cache(maxsize=1024)
def _is_credential(name: str) -> bool:
    plain = re.sub(r"[^a-z0-9]", "", decode_repeatedly(name).lower())
    return plain in _NAMES or plain.endswith((*_ENDINGS, *_HEADERS))


def _values(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield start, end and replacement of each value of a credential."""
    done, separators = 0, _Separators(text)
    for operator in _OPERATOR.finditer(text):
        name = _name_before(text, operator.start()) if operator.start() >= done else None
        is_equals = operator[0] not in {":", ","}
        if name is None or (not is_equals and name.plain in _ORDINARY) or (operator[0] == "," and not name.is_in_pair):
            continue
        # The value of an encoded link ends at the next `&` that is encoded no more deeply than the link.
        limit = len(text) if operator["depth"] is None else separators.next(operator.end(), len(operator["depth"]))
        start, end, is_bare = _value(text, (operator.end(), limit + 1), name, may_be_header=not is_equals)
        end = min(end, limit)
        if start < end:
            done = end
            yield start, end, f"{name.closing}{MASK}{name.closing}" if is_bare else MASK


def _name_before(text: str, end: int) -> _Name | None:
    begin = max(0, end - _BEFORE_CHARACTERS)
    for separator in ("%26", "%3D"):  # no name reaches back over one, and there can be one every few characters
        separator_at = text.rfind(separator, begin, end)
        begin = begin if separator_at < 0 else separator_at + len(separator)
    before = decode_repeatedly(text[begin:end]).rstrip()
    unquoted = before.rstrip("\\\"'")
    match = _NAME_BACKWARDS.match(unquoted[::-1])
    if not match or not is_credential(match[0][::-1]):
        return None
    return _Name(match[0][::-1].lower(), before[len(unquoted) :], unquoted[: -match.end()])


def _value(text: str, within: tuple[int, int], name: _Name, *, may_be_header: bool) -> tuple[int, int, bool]:
    """Return start and end of the value after an operator, and whether the mask needs quotes."""
    start, limit = within
    if opening := _OPENING.match(text, start, limit):
        return opening.end(), _closing(text, opening, limit), False
    if encoded := _ENCODED_QUOTED.match(text, start, limit):
        return *encoded.span(2), False
    if name.closing and (listed := _LIST.match(text, start, limit)):
        return listed.end(), _end_of_list(text, listed.end(), limit), True
    if name.closing:
        value = None if _EMPTY.match(text, start) else _BARE.match(text, start, limit)
    else:
        value = (_LINE if may_be_header and name.plain.endswith(_HEADERS) else _PARAMETER).match(text, start, limit)
    return (*value.span(1), bool(name.closing)) if value else (start, start, False)


def _end_of_list(text: str, at: int, limit: int) -> int:
    while (between := _BETWEEN.match(text, at, limit)) and (opening := _OPENING.match(text, between.end(), limit)):
        at = _closing(text, opening, limit) + len(opening["escapes"]) + 1
    return between.end() if between else limit


def _closing(text: str, opening: re.Match[str], limit: int) -> int:
    """Return where a quoted value ends: at the next quote that has at most as many escapes as the opening one."""
    escapes = len(opening["escapes"])
    for match in _CLOSING[opening["quote"]].finditer(text, opening.end(), limit):
        if len(match[1]) <= escapes:
            return match.start()
    return min(limit, len(text))


def _mask_encoded_user_info(text: str) -> str:
    """Mask the user part of percent-encoded URLs: the text from `//` to the last `@` that is encoded as deeply."""
    if not _ENCODED_SLASHES.search(text):
        return text
    masked: list[str] = []
    done = 0
    for start, end in sorted(_encoded_user_infos(text)):
        if start > done:  # not within the user part of another link
            masked += (text[done:start], MASK)
            done = end
    return "".join((*masked, text[done:]))


def _encoded_user_infos(text: str) -> Iterator[tuple[int, int]]:
    """Yield start and end of each possible user part, in one pass for all depths."""
    starts: dict[int, int] = {}  # of the host, by the depth of the link
    last_at: dict[int | None, int] = {}
    slash = (0, -1)  # end and depth of the last encoded slash

    def ended(depth: int) -> Iterator[tuple[int, int]]:
        start = starts.pop(depth, None)
        at = max(last_at.get(depth, -1), last_at.get(None, -1))
        if start is not None and at >= start:
            yield start, at

    for part in _LINK_PART.finditer(text):
        depth = None if part["depth"] is None else len(part["depth"])
        if part[0] == "@" or part["code"] == "40":
            last_at[depth] = part.start()
        elif depth is None:
            for open_depth in tuple(starts):
                yield from ended(open_depth)
        else:
            yield from ended(depth)
            if part["code"].upper() == "2F":
                if slash == (part.start(), depth):
                    starts[depth] = part.end()
                slash = part.end(), depth
    for open_depth in tuple(starts):
        yield from ended(open_depth)
