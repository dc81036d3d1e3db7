"""What the keys of an `[endpoints.<name>]` table may be."""

from __future__ import annotations

import base64
import binascii
import re
from enum import StrEnum
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from pydantic import SecretStr

from callfold_client import Where, WhereError
from shared.config.links import login_of, origin

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - how every secret begins
# The Standard Webhooks specification: 24 to 64 random bytes.
_SECRET_BYTES = range(24, 65)
_MAX_PREVIOUS: Final = 4
_MAX_URL: Final = 2000
_MAX_PATTERN: Final = 255  # what AMQP can carry
MAX_FILTERS: Final = 20
DEFAULT_FILTER: Final = ("call.#",)
_MAX_HEADERS: Final = 20
_MAX_HEADER_VALUE: Final = 2000
_WORD = re.compile(r"[A-Za-z0-9_-]{1,64}|\*|#", re.ASCII)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}", re.ASCII)
_VALUE = re.compile(r"[\x20-\x7e]*", re.ASCII)
_PRINTABLE = re.compile(r"[!-~]+", re.ASCII)
# Callfold sets these itself, or they change how a request is framed or routed.
_RESERVED_HEADERS = frozenset(
    {
        "host", "content-type", "content-length", "content-encoding", "transfer-encoding", "connection", "keep-alive", "te",
        "trailer", "upgrade", "expect", "proxy-connection", "proxy-authorization", "accept-encoding", "traceparent",
    }
)  # fmt: skip
_RESERVED_PREFIX = "webhook-"


class Order(StrEnum):
    """Which events of an endpoint wait for each other: none, or those of one call."""

    NONE = "none"
    CALL = "call"


def check_url(url: SecretStr) -> SecretStr:
    """Check the URL of an endpoint. It may contain a token, so an error never quotes its path or query."""
    text = url.get_secret_value()
    if len(text) > _MAX_URL or not _PRINTABLE.fullmatch(text):
        raise ValueError(f"must have at most {_MAX_URL} characters, without spaces. Percent-encode all others")
    origin(text)
    if login_of(text) is not None:
        raise ValueError("has a user or password. Write the header Authorization in `headers` instead")
    if urlsplit(text).fragment:
        raise ValueError("has a fragment, which is never sent. Remove what follows the #")
    return url


def needs_tls(url: str) -> bool:
    """Return whether a URL without TLS would send events across a public network: its host is no private literal address."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "https" or host.rstrip(".").lower() == "localhost":
        return False
    try:
        return ip_address(host).is_global
    except ValueError:
        return True


def check_secret(secret: SecretStr) -> SecretStr:
    """Check a secret of Standard Webhooks: `whsec_`, then 24 to 64 bytes in base64."""
    text = secret.get_secret_value()
    problem = "must be `whsec_` and then 24 to 64 random bytes in base64"
    if not text.startswith(SECRET_PREFIX):
        raise ValueError(problem)
    encoded = text.removeprefix(SECRET_PREFIX)
    try:
        decoded = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(problem) from None
    if len(decoded) not in _SECRET_BYTES:
        raise ValueError(f"{problem}, and this one has {len(decoded)} bytes")
    return secret


def check_previous(secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    """Limit the previous secrets. Each makes one more signature in a header."""
    if len(secrets) > _MAX_PREVIOUS:
        raise ValueError(f"has more than {_MAX_PREVIOUS} entries. Remove those that no receiver uses any more")
    return tuple(check_secret(each) for each in secrets)


def as_filters(written: object) -> object:
    """Take one pattern for a list of one."""
    return [written] if isinstance(written, str) else written


def check_filters(patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Check topic patterns of RabbitMQ, and drop repeated ones."""
    if not patterns or len(patterns) > MAX_FILTERS:
        raise ValueError(f"must have 1 to {MAX_FILTERS} topic patterns")
    for pattern in patterns:
        if len(pattern) > _MAX_PATTERN or not all(_WORD.fullmatch(word) for word in pattern.split(".")):
            raise ValueError('must be topic patterns: words of a-z, 0-9, "_" and "-", or * or #, with dots between them')
    return tuple(dict.fromkeys(patterns))


def check_where(expression: str) -> str:
    """Check an expression. Its error shows the expression, which is no secret."""
    try:
        Where(expression)
    except WhereError as error:
        raise ValueError(str(error).removesuffix(".")) from error
    return expression


def check_headers(headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
    """Check fixed headers. A value may be a credential, so an error names only the header."""
    if len(headers) > _MAX_HEADERS:
        raise ValueError(f"has more than {_MAX_HEADERS} headers")
    seen: set[str] = set()
    for name, value in headers.items():
        lower = name.lower()
        if not _TOKEN.fullmatch(name):
            raise ValueError("has a name that is no HTTP header. Use a-z, 0-9 and hyphens")
        if lower in _RESERVED_HEADERS or lower.startswith(_RESERVED_PREFIX):
            raise ValueError(f"cannot set {name}. Callfold sets it itself, or it belongs to the connection")
        if lower in seen:
            raise ValueError(f"has {name} twice")
        text = value.get_secret_value()
        if len(text) > _MAX_HEADER_VALUE or not _VALUE.fullmatch(text):
            raise ValueError(f"{name} must have at most {_MAX_HEADER_VALUE} printable ASCII characters on one line")
        seen.add(lower)
    return headers
