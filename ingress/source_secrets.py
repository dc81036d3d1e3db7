"""The secrets of the sources: comparing one that was sent, and hiding them in what is kept."""

from __future__ import annotations

import hmac
import html
import json
import re
from collections.abc import Collection, Iterable, Sequence
from enum import StrEnum
from hashlib import sha256

from shared.config.sources import Source, Sources
from shared.domain.adapter_link import is_hidden
from shared.domain.callback_values import tidied
from shared.domain.ids import SourceName
from shared.masking import MASK
from shared.percent_encoding import bytes_of, decode_bytes, decode_with_places

# Far more than a secret has. What is longer is not decoded again.
_LONGEST = 1024
_WIDE = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")


class Which(StrEnum):
    """Which secret of a source a callback has."""

    CURRENT = "current"
    PREVIOUS = "previous"


class _Hidden:
    """The spellings of a secret that is hidden, apart from percent-encoding."""

    __slots__ = ("in_name", "pattern", "which", "wide")

    def __init__(self, secret: str, which: Which) -> None:
        self.which = which
        self.pattern = _pattern(secret)
        self.in_name = re.compile(re.escape(secret.lower()).encode())
        self.wide = [secret.encode(encoding, "surrogatepass") for encoding in _WIDE]

    def is_in(self, content: bytes) -> bool:
        return bool(_is_in(content, [self.pattern])) or any(wide in content for wide in self.wide)


class SourceSecrets:
    """Knows the current and the previous secrets: each by its digest, and by the spellings that it can have."""

    def __init__(self, sources: Sources) -> None:
        secrets = {name: source.secrets for name, source in sources.items() if source.secrets}
        # Digests have the same length, so the comparison takes the same time for every secret.
        self._digests = {name: [*map(_digest, of_source)] for name, of_source in secrets.items()}
        # A current secret takes precedence over the same one that another source had before.
        self._owners = {digest: name for name, (_, *previous) in self._digests.items() for digest in previous}
        self._owners |= {current: name for name, (current, *_) in self._digests.items()}
        # An adapter link can contain the secret again under another name, and that copy must not be stored either.
        self._hidden = {
            name: [_Hidden(secret, _which(number)) for number, secret in enumerate(of_source) if is_hidden(secret)]
            for name, of_source in secrets.items()
        }

    def which(self, source: Source, secret: str | None) -> Which | None:
        """Return which secret of a source was sent; None if it is wrong. A source without a secret takes any as its current one.

        `secret` is None if there was none. Blanks, quotes and a second encoding do not count.
        """
        digests = self._digests.get(source.name)
        if digests is None:
            return Which.CURRENT
        which = _compared(_digest(secret or ""), digests)
        if which is None and len(secret or "") <= _LONGEST:
            which = _compared(_digest(tidied(secret or "")), digests)
        return which

    def owner(self, secret: str | None) -> SourceName | None:
        """Return the source that has this secret."""
        if not secret:
            return None
        return self._owners.get(_digest(secret)) or (
            self._owners.get(_digest(tidied(secret))) if len(secret) <= _LONGEST else None
        )

    def which_in_body(self, source: SourceName, content: bytes) -> Which | None:
        """Return which secret of its source a body of any format has; a short one is not searched."""
        return next((each.which for each in self._hidden.get(source, ()) if each.is_in(content)), None)

    def hide(self, source: SourceName, query: str) -> str:
        """Mask the secrets of a source wherever they are in a query, however often they are encoded."""
        hidden = self._hidden.get(source)
        if not hidden:
            return query
        content = bytes_of(query)
        present = _is_in(content, [each.pattern for each in hidden])
        return _text(_hidden(content, present)) if present else query

    def hide_all(self, text: str) -> str:
        """Mask the secrets of all sources wherever they are in a text."""
        content = bytes_of(text)
        hidden = self.hide_all_in_body(content)
        return text if hidden is content else _text(hidden)

    def hide_all_in_body(self, content: bytes) -> bytes:
        """Mask the secrets of all sources in a body of any format. All other bytes stay as they are."""
        return self._hide([each for of_source in self._hidden.values() for each in of_source], content)

    def hide_in_body(self, source: SourceName, content: bytes) -> bytes:
        """Mask the secrets of a source in a body of any format. All other bytes stay as they are."""
        return self._hide(self._hidden.get(source, ()), content)

    def is_in_name(self, name: str) -> bool:
        """Return whether a name of a source, in lower case, has the secret of any source."""
        return any(each.in_name.search(name.encode()) for of_source in self._hidden.values() for each in of_source)

    @staticmethod
    def _hide(hidden: Collection[_Hidden], content: bytes) -> bytes:
        present = _is_in(content, [each.pattern for each in hidden])
        content = _hidden(content, present) if present else content
        if b"\0" in content:
            for wide in (wide for each in hidden for wide in each.wide):
                content = content.replace(wide, MASK.encode())
        return content


def _which(number: int) -> Which:
    return Which.PREVIOUS if number else Which.CURRENT


def _compared(digest: bytes, digests: Sequence[bytes]) -> Which | None:
    """Compare a digest with all of a source, so that the time does not depend on which one it is."""
    which: Which | None = None
    for number, each in enumerate(digests):
        if hmac.compare_digest(digest, each):
            which = _which(number)
    return which


def _digest(secret: str) -> bytes:
    return sha256(secret.encode("utf-8", "surrogatepass")).digest()


def _comparable(content: bytes) -> bytes:
    """Decode bytes for a search. A `+` can stand for a blank."""
    return decode_bytes(content).replace(b"+", b" ")


def _is_in(content: bytes, patterns: Iterable[re.Pattern[bytes]]) -> list[re.Pattern[bytes]]:
    """Return the patterns that find a secret in the content as it is, or decoded."""
    texts = {content.replace(b"+", b" "), _comparable(content)}
    return [pattern for pattern in patterns if any(map(pattern.search, texts))]


def _hidden(content: bytes, patterns: Collection[re.Pattern[bytes]]) -> bytes:
    """Mask what the patterns find in the content as it is or decoded, at its place in the content."""
    decoded, places = decode_with_places(content)
    spans = [match.span() for pattern in patterns for match in pattern.finditer(content.replace(b"+", b" "))]
    for pattern in patterns:
        spans += [(places[match.start()], places[match.end()]) for match in pattern.finditer(decoded.replace(b"+", b" "))]
    kept, done = [], 0
    for start, end in sorted(spans):
        if start >= done:
            kept += [content[done:start], MASK.encode()]
        done = max(done, end)
    return b"".join((*kept, content[done:]))


def _text(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape")


def _pattern(secret: str) -> re.Pattern[bytes]:
    """Return what finds a secret in decoded bytes, also as JSON and HTML escape it.

    One of digits alone is found as a whole number only, since it can be part of another number by chance.
    """
    in_json = json.dumps(secret)[1:-1]
    others = {in_json, in_json.replace("/", "\\/"), json.dumps(secret, ensure_ascii=False)[1:-1]}
    in_html = {html.escape(secret), html.escape(secret, quote=False)}
    spellings = sorted((_comparable(bytes_of(each)) for each in {secret, *others, *in_html}), key=len, reverse=True)
    any_of = b"|".join(map(re.escape, dict.fromkeys(spellings)))
    return re.compile(rb"(?<![0-9])(?:%s)(?![0-9])" % any_of if secret.isdecimal() else any_of)
