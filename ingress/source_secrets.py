"""The secrets of the sources: comparing one that was sent, and hiding them in what is kept."""

from __future__ import annotations

import hmac
import html
import json
import re
from collections.abc import Collection, Iterable
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


class SourceSecrets:
    """Knows each secret by its digest and by the spellings that it can have, apart from percent-encoding."""

    def __init__(self, sources: Sources) -> None:
        secrets = {name: source.secret.get_secret_value() for name, source in sources.items() if source.secret}
        # Digests have the same length, so the comparison takes the same time for every secret.
        self._digests = {name: _digest(secret) for name, secret in secrets.items()}
        self._owners = {digest: name for name, digest in self._digests.items()}
        # An adapter link can contain the secret again under another name, and that copy must not be stored either.
        self._patterns = {name: _pattern(secret) for name, secret in secrets.items() if is_hidden(secret)}
        self._in_names = [re.compile(re.escape(secrets[name].lower()).encode()) for name in self._patterns]
        self._wide = {name: [secrets[name].encode(encoding, "surrogatepass") for encoding in _WIDE] for name in self._patterns}

    def is_wrong(self, source: Source, secret: str | None) -> bool:
        """Compare a secret that was sent; None if there was none. Blanks, quotes and a second encoding do not count."""
        expected = self._digests.get(source.name)
        if expected is None or hmac.compare_digest(_digest(secret or ""), expected):
            return False
        return len(secret or "") > _LONGEST or not hmac.compare_digest(_digest(tidied(secret or "")), expected)

    def owner(self, secret: str | None) -> SourceName | None:
        """Return the source that has this secret."""
        if not secret:
            return None
        return self._owners.get(_digest(secret)) or (
            self._owners.get(_digest(tidied(secret))) if len(secret) <= _LONGEST else None
        )

    def is_in_body(self, source: SourceName, content: bytes) -> bool:
        """Return whether a body of any format has the secret of its source; a short one is not searched."""
        if source not in self._patterns:
            return False
        return bool(_is_in(content, [self._patterns[source]])) or any(wide in content for wide in self._wide[source])

    def hide(self, source: SourceName, query: str) -> str:
        """Mask the secret of a source wherever it is in a query, however often it is encoded."""
        pattern = self._patterns.get(source)
        if pattern is None:
            return query
        content = bytes_of(query)
        return _text(_hidden(content, [pattern])) if _is_in(content, [pattern]) else query

    def hide_all(self, text: str) -> str:
        """Mask the secrets of all sources wherever they are in a text."""
        content = bytes_of(text)
        hidden = self.hide_all_in_body(content)
        return text if hidden is content else _text(hidden)

    def hide_all_in_body(self, content: bytes) -> bytes:
        """Mask the secrets of all sources in a body of any format. All other bytes stay as they are."""
        return self._hide(self._patterns, content)

    def hide_in_body(self, source: SourceName, content: bytes) -> bytes:
        """Mask the secret of a source in a body of any format. All other bytes stay as they are."""
        return self._hide([source] if source in self._patterns else [], content)

    def is_in_name(self, name: str) -> bool:
        """Return whether a name of a source, in lower case, has the secret of any source."""
        return any(pattern.search(name.encode()) for pattern in self._in_names)

    def _hide(self, sources: Collection[SourceName], content: bytes) -> bytes:
        present = _is_in(content, [self._patterns[source] for source in sources])
        content = _hidden(content, present) if present else content
        if b"\0" in content:
            for wide in (wide for source in sources for wide in self._wide[source]):
                content = content.replace(wide, MASK.encode())
        return content


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
