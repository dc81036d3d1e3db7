"""Mask credentials in text for users and logs: in links, queries, JSON, headers, cookies and tracebacks.

The scan looks for the operator between a name and its value: `=`, `:`, or the comma of a pair. The operator may be
percent-encoded any number of times. If the name is that of a credential, the value is masked. Parsers of queries and JSON would
miss those in free text.
Examples are JSON within JSON, `repr` output, headers, and links that are encoded twice or cut off.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote

MASK = "***"

_NAMES = frozenset({"sid", "session", "pwd", "pass", "key", "auth", "sig", "cookies"})
_ENDINGS = (
    "token", "sectok", "password", "passwd", "passphrase", "secret", "signature", "credential", "credentials", "sessionid",
    "sessid", "apikey", "accesskey", "privatekey", "secretkey", "consolekey", "viewerkey",
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
_ENCODED_USER_INFO = re.compile(
    r"(%(?P<depth>(?:25)*)2F%(?P=depth)2F)(?:(?!%(?P=depth)(?:2F|3F|23|26))[^/?#&\s\"'\\])*(@|%(?P=depth)40)", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class _Name:
    """The name of a credential before an operator; `closing` is the quote after the name, with its escapes."""

    plain: str
    closing: str
    is_in_pair: bool


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
    text = _USER_INFO.sub(rf"\1{MASK}@", _BEARER.sub(rf"\1{MASK}", text))
    return _ENCODED_USER_INFO.sub(rf"\1{MASK}\3", text)


def mask_value(name: str, value: str) -> str:
    """Mask a named value: all of it if the name is that of a credential, else the credentials in it."""
    return MASK if value and is_credential(name) else mask_credentials(value)


def is_credential(name: str) -> bool:
    """Return whether a parameter, field or header of this name is a credential."""
    plain = re.sub(r"[^a-z0-9]", "", _decoded(name).lower())
    return plain in _NAMES or plain.endswith((*_ENDINGS, *_HEADERS))


def _values(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield start, end and replacement of each value of a credential."""
    done = 0
    for operator in _OPERATOR.finditer(text):
        name = _name_before(text, operator.start()) if operator.start() >= done else None
        is_equals = operator[0] not in {":", ","}
        if name is None or (not is_equals and name.plain in _ORDINARY) or (operator[0] == "," and not name.is_in_pair):
            continue
        start, end, is_bare = _value(text, operator.end(), name, may_be_header=not is_equals)
        if operator["depth"] is not None:
            end = _end_within(text, start, end, operator["depth"])
        if start < end:
            done = end
            yield start, end, f"{name.closing}{MASK}{name.closing}" if is_bare else MASK


def _name_before(text: str, end: int) -> _Name | None:
    before = _decoded(text[max(0, end - _BEFORE_CHARACTERS) : end]).rstrip()
    unquoted = before.rstrip("\\\"'")
    match = _NAME_BACKWARDS.match(unquoted[::-1])
    if not match or not is_credential(match[0][::-1]):
        return None
    name, opening = match[0][::-1], unquoted[: -match.end()]
    return _Name(name.lower(), before[len(unquoted) :], _PAIR.search(opening) is not None)


def _value(text: str, start: int, name: _Name, *, may_be_header: bool) -> tuple[int, int, bool]:
    """Return start and end of the value after an operator, and whether the mask needs quotes."""
    if opening := _OPENING.match(text, start):
        return opening.end(), _closing(text, opening.end(), opening["quote"], len(opening["escapes"])), False
    if encoded := _ENCODED_QUOTED.match(text, start):
        return *encoded.span(2), False
    if name.closing and (listed := _LIST.match(text, start)):
        return listed.end(), _end_of_list(text, listed.end()), True
    if name.closing:
        value = None if _EMPTY.match(text, start) else _BARE.match(text, start)
    else:
        value = (_LINE if may_be_header and name.plain.endswith(_HEADERS) else _PARAMETER).match(text, start)
    return (*value.span(1), bool(name.closing)) if value else (start, start, False)


def _end_within(text: str, start: int, end: int, depth: str) -> int:
    """Return the end of a value in an encoded link: the next `&` that is encoded no more deeply than the link."""
    return next((match.start() for match in _AND.finditer(text, start, end) if len(match["depth"]) <= len(depth)), end)


def _end_of_list(text: str, at: int) -> int:
    while (between := _BETWEEN.match(text, at)) and (opening := _OPENING.match(text, between.end())):
        at = _closing(text, opening.end(), opening["quote"], len(opening["escapes"])) + len(opening["escapes"]) + 1
    return between.end() if between else len(text)


def _closing(text: str, start: int, quote: str, escapes: int) -> int:
    """Return the end of a nested string: the next quote that is escaped no more often than the opening one."""
    for match in re.compile(rf"(?<!\\)(\\*+){quote}").finditer(text, start):
        if len(match[1]) <= escapes:
            return match.start()
    return len(text)


def _decoded(text: str) -> str:
    while (plain := unquote(text)) != text:
        text = plain
    return text
