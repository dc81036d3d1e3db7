"""Filters beyond the routing key, such as `talk_seconds > 60 and outcome == 'answered'`.

    or:         and ("or" and)*
    and:        not ("and" not)*
    not:        "not" not | comparison
    comparison: value (("==" | "!=" | "<" | "<=" | ">" | ">=" | "in" | "not in") value)?
    value:      name ("." name)* | number | 'text' | "text" | true | false | null | [value, ...] | (or)

A name is a field of the event's `data`, such as `agent.extension`, or else an attribute of the event, such as `type`. A field
that is missing is null. A comparison of values of different types is false, and so is any order with null.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from callfold_client.errors import WhereError

MAX_CHARACTERS = 4096
_MAX_DEPTH = 50
_TOKEN = re.compile(
    r"\s*(?:(?P<number>-?\d+(?:\.\d+)?)|(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<text>'[^']*'|\"[^\"]*\")"
    r"|(?P<sign>==|!=|<=|>=|<|>|[()\[\],.]))"
)
_END = ""
_CONSTANTS: Mapping[str, object] = {"true": True, "false": False, "null": None}
_RESERVED = frozenset({"and", "or", "not", "in", *_CONSTANTS})
_COMPARISONS = frozenset({"==", "!=", "<", "<=", ">", ">="})
_DATA = "data"
_ATTRIBUTES = frozenset({"id", "subject", "type", "time", "dataschema", "sequence", "partitionkey"})
_FIELDS = frozenset(
    (
        *("source", "request_id", "revision", "outcome", "complete", "close_reason", "reference", "metadata", "dial"),
        *("started_at", "answered_at", "ended_at", "ring_seconds", "talk_seconds", "call_type", "queue", "ended_by"),
        *("agent", "dialed", "other_legs", "fields", "ignored", "annotations"),
        *("call_id", "guid", "leg", "uri", "bytes", "sha256", "sha512", "seconds", "channels", "sample_rate", "encryption"),
        *("attempts", "reason", "flags", "kept"),
    )
)
_NAMES = _FIELDS | _ATTRIBUTES | {_DATA}

_Json = Mapping[str, Any]
_Value = Callable[[_Json], object]


class _Token(NamedTuple):
    kind: str
    text: str
    at: int


class Where:
    """A filter on events. Nothing of its text is executed."""

    def __init__(self, text: str) -> None:
        """Read a filter.

        Raises:
            WhereError: it cannot be read; the error says at which character and why.
        """
        self.text = text
        self._value = _Parser(text).parse()

    def matches(self, event: _Json) -> bool:
        """Return whether an event, as parsed JSON, passes the filter."""
        return self._value(event) is True

    def __repr__(self) -> str:
        return f"Where({self.text!r})"

    def __str__(self) -> str:
        return self.text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Where) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)


def _tokens(text: str) -> list[_Token]:
    if len(text) > MAX_CHARACTERS:
        raise WhereError(text[:40] + "...", MAX_CHARACTERS, f"it has more than {MAX_CHARACTERS} characters")
    tokens, at, end = [], 0, len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None:
            begin = at + len(text[at:]) - len(text[at:].lstrip())
            is_quote = text[begin] in "'\""
            raise WhereError(text, begin, "the text has no closing quote" if is_quote else f"{text[begin]!r} is not expected")
        kind = str(match.lastgroup)
        tokens.append(_Token(kind, match[kind], match.start(kind)))
        at = match.end()
    return [*tokens, _Token("end", _END, end)]


class _Parser:
    """A recursive descent, limited in depth."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = _tokens(text)
        self._at = 0
        self._depth = 0

    def parse(self) -> _Value:
        value = self._or()
        if self._next.text != _END or self._next.kind != "end":
            raise self._error(f"{self._next.text!r} is not expected here")
        return value

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _error(self, problem: str, token: _Token | None = None) -> WhereError:
        return WhereError(self._text, (token or self._next).at, problem)

    def _take(self, *texts: str) -> str | None:
        """Take the next token if it is one of these signs or words."""
        token = self._next
        if token.kind in {"name", "sign"} and token.text in texts:
            self._at += 1
            return token.text
        return None

    def _expect(self, text: str) -> None:
        if self._take(text) is None:
            raise self._error(f"{text!r} is missing")

    def _or(self) -> _Value:
        parts = [self._and()]
        while self._take("or"):
            parts.append(self._and())
        return parts[0] if len(parts) == 1 else lambda event: any(part(event) is True for part in parts)

    def _and(self) -> _Value:
        parts = [self._not()]
        while self._take("and"):
            parts.append(self._not())
        return parts[0] if len(parts) == 1 else lambda event: all(part(event) is True for part in parts)

    def _not(self) -> _Value:
        is_negated = False
        while self._take("not"):
            is_negated = not is_negated
        value = self._comparison()
        return (lambda event: value(event) is not True) if is_negated else value

    def _comparison(self) -> _Value:
        left = self._value()
        sign = self._take(*_COMPARISONS, "in", "not")
        if sign is None:
            return left
        if sign == "not":
            self._expect("in")
            sign = "not in"
        right = self._value()
        return lambda event: _compare(sign, left(event), right(event))

    def _value(self) -> _Value:
        token = self._next
        if self._take("(", "["):
            self._depth += 1
            if self._depth > _MAX_DEPTH:
                raise self._error(f"it is nested more than {_MAX_DEPTH} times", token)
            value = self._list() if token.text == "[" else self._in_parentheses()
            self._depth -= 1
            return value
        self._at += 1
        if token.kind == "number":
            return _constant(float(token.text) if "." in token.text else int(token.text))
        if token.kind == "text":
            return _constant(token.text[1:-1])
        if token.kind == "name" and token.text in _CONSTANTS:
            return _constant(_CONSTANTS[token.text])
        if token.kind == "name" and token.text not in _RESERVED:
            return self._path(token)
        expected = "a field or a value is missing at the end" if token.kind == "end" else f"{token.text!r} is no field or value"
        raise self._error(expected, token)

    def _in_parentheses(self) -> _Value:
        value = self._or()
        self._expect(")")
        return value

    def _list(self) -> _Value:
        values: list[_Value] = []
        while not self._take("]"):
            if values:
                self._expect(",")
            values.append(self._value())
        return lambda event: [value(event) for value in values]

    def _path(self, first: _Token) -> _Value:
        if first.text not in _NAMES:
            close = difflib.get_close_matches(first.text, _NAMES, n=1)
            hint = f", but {close[0]!r}" if close else ""
            raise self._error(f"events have no field {first.text!r}{hint}", first)
        names = [first.text]
        while self._take("."):
            token = self._next
            if token.kind != "name":
                raise self._error("a name is missing after '.'")
            self._at += 1
            names.append(token.text)
        return lambda event: _look_up(event, names)


def _constant(value: object) -> _Value:
    return lambda _: value


def _look_up(event: _Json, names: list[str]) -> object:
    data = event.get(_DATA)
    value: object = data if names[0] != _DATA and isinstance(data, Mapping) and names[0] in data else event
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _compare(sign: str, left: object, right: object) -> bool:
    if sign in {"in", "not in"}:
        return _contains(right, left) == (sign == "in")
    if sign in {"==", "!="}:
        return _is_equal(left, right) == (sign == "==")
    if isinstance(left, bool) or isinstance(right, bool):
        return False
    if not (isinstance(left, int | float) and isinstance(right, int | float)) and not (
        isinstance(left, str) and isinstance(right, str)
    ):
        return False
    order = (left > right) - (left < right)  # type: ignore[operator]
    return {"<": order < 0, "<=": order <= 0, ">": order > 0, ">=": order >= 0}[sign]


def _is_equal(left: object, right: object) -> bool:
    return isinstance(left, bool) == isinstance(right, bool) and left == right


def _contains(container: object, value: object) -> bool:
    """Return whether a list has a value, or a text another text, or an object a name."""
    if isinstance(container, list | tuple):
        return any(_is_equal(each, value) for each in container)
    return isinstance(container, str | Mapping) and isinstance(value, str) and value in container
