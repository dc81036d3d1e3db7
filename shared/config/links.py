"""Checks the links of a source: their origin, and their user and password. An error never quotes a credential."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import SecretStr

_DEFAULT_PORTS = {"http": 80, "https": 443}
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")
# With an "@" behind the host, what seems to be the host can be part of a user or password.
_SHOWABLE = re.compile(
    r"([a-z][a-z0-9+.-]*://)(?:[^/?#\\@]*@)?([\w.-]+(?::[0-9]{1,5})?)(?:[/?#][^@]*)?", re.ASCII | re.IGNORECASE | re.DOTALL
)
_LAST_OF_LATIN_1 = 0xFF


def origin(url: str) -> str:
    """Return scheme, host and port of a URL, without the scheme's default port.

    Raises:
        ValueError: it has none. The error shows the scheme and host alone, since anything else may be a credential.
    """
    parts = _split(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{_shown(url)} is not an http or https URL with a host")
    try:
        port = parts.port
    except ValueError:  # it quotes the port, which is a password where that has an unescaped slash
        raise ValueError("the port is not a number. Percent-encode the user name and password of a URL") from None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{'' if port in {None, _DEFAULT_PORTS[parts.scheme]} else f':{port}'}"


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:  # it quotes the user and password
        raise ValueError(f"{_shown(url)} is not a URL. Percent-encode the user name and password") from None


def _shown(url: str) -> str:
    """Return scheme and host of a URL, or "the text" if it is in doubt what they are."""
    match = _SHOWABLE.fullmatch(url)
    return "the text" if match is None else f"{match[1]}{match[2]}"


def login_of(url: str) -> str | None:
    """Return user and password of a URL as `user:password`, decoded; None if it has none.

    Raises:
        ValueError: HTTP cannot send them (RFC 7617), or they are not percent-encoded.
    """
    parts = _split(url)
    user_info, at, _ = parts.netloc.rpartition("@")
    if not at:
        return None
    user, _, password = (unquote(part) for part in user_info.partition(":"))
    if ":" in user or _CONTROLS.search(user + password):
        raise ValueError("the user name has a colon, or the user name or password a control character. HTTP cannot send them")
    return f"{user}:{password}"


def check_origin(url: SecretStr) -> SecretStr:
    """Check the origin of downloads, which may have a user and password."""
    text = url.get_secret_value()
    origin(text)
    login_of(text)
    parts = _split(text)
    if "@" in f"{parts.path}{parts.query}{parts.fragment}":
        raise ValueError('"@" comes after the host. Percent-encode the user name and password')
    return url


def check_dial_login(link: SecretStr) -> SecretStr:
    """Check that the user and password of a dial link can be sent."""
    login = login_of(link.get_secret_value())
    if login is not None and not all(ord(character) <= _LAST_OF_LATIN_1 for character in login):
        raise ValueError("the user name or password has a character that is not in Latin-1, so it cannot be sent")
    return link
