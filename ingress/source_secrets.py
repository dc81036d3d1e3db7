"""The secrets of the sources: comparing one that was sent, and hiding them in what is kept."""

from __future__ import annotations

import hmac
import html
import json
from hashlib import sha256

from shared.config.sources import Source, Sources
from shared.domain.adapter_link import hide_values, spellings
from shared.domain.callback_values import tidied
from shared.domain.ids import SourceName
from shared.masking import MASK

# Far more than a secret has. What is longer is not decoded again.
_LONGEST = 1024


class SourceSecrets:
    """Knows each secret by its digest and by the spellings that it can have."""

    def __init__(self, sources: Sources) -> None:
        secrets = {name: source.secret.get_secret_value() for name, source in sources.items() if source.secret}
        # Digests have the same length, so the comparison takes the same time for every secret.
        self._digests = {name: _digest(secret) for name, secret in secrets.items()}
        # An adapter link can contain the secret again under another name, and that copy must not be stored either.
        self._hidden = {name: spellings(secret) for name, secret in secrets.items()}
        self._owners = {digest: name for name, digest in self._digests.items()}
        self._in_bodies = {name: _spellings_in_bodies(secret) for name, secret in secrets.items()}

    def is_wrong(self, source: Source, secret: str | None) -> bool:
        """Compare a secret that was sent; None if there was none. Blanks, quotes and a second encoding do not count."""
        expected = self._digests.get(source.name)
        if expected is None or hmac.compare_digest(_digest(secret or ""), expected):
            return False
        return len(secret or "") > _LONGEST or not hmac.compare_digest(_digest(tidied(secret or "")), expected)

    def hide(self, source: SourceName, query: str) -> str:
        """Mask the parameters of a query whose value is the secret of its source."""
        return hide_values(query, self._hidden[source]) if source in self._hidden else query

    def is_in_body(self, source: SourceName, content: bytes) -> bool:
        """Return whether a body of any format has the secret of its source; a short one is not searched."""
        return any(spelling in content for spelling in self._in_bodies.get(source, ()))

    def owner(self, secret: str | None) -> SourceName | None:
        """Return the source that has this secret."""
        return self._owners.get(_digest(secret)) if secret else None

    def hide_all(self, query: str) -> str:
        """Mask the secrets of all sources wherever they are in a query: a body that was misread may hold one anywhere."""
        return self.hide_all_in_body(query.encode()).decode()

    def hide_all_in_body(self, content: bytes) -> bytes:
        """Mask the secrets of all sources in a body of any format."""
        for source in self._in_bodies:
            content = self.hide_in_body(source, content)
        return content

    def hide_in_body(self, source: SourceName, content: bytes) -> bytes:
        """Mask the secret of a source in a body of any format. All other bytes stay as they are."""
        for spelling in self._in_bodies.get(source, ()):
            content = content.replace(spelling, MASK.encode())
        return content


def _digest(secret: str) -> bytes:
    return sha256(secret.encode("utf-8", "surrogatepass")).digest()


def _spellings_in_bodies(secret: str) -> tuple[bytes, ...]:
    """Return the forms that a secret can have in a body, the longest first; none if it is too short to be hidden."""
    plain = spellings(secret)
    if not plain:
        return ()
    in_json = json.dumps(secret)[1:-1]
    others = {in_json, in_json.replace("/", "\\/"), json.dumps(secret, ensure_ascii=False)[1:-1], html.escape(secret)}
    return tuple(sorted((spelling.encode() for spelling in plain | others), key=len, reverse=True))
