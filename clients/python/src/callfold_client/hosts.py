"""The addresses of RabbitMQ. Passwords never appear in what this returns as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from callfold_client.errors import SubscriptionError

_HEARTBEAT_S = 10
_SCHEMES = {"amqp": 5672, "amqps": 5671}


class Hosts:
    """One or several URLs of the same RabbitMQ."""

    def __init__(self, urls: str | Sequence[str]) -> None:
        """Read URLs; several in one text are separated by commas.

        Raises:
            SubscriptionError: one is no AMQP URL. Its text is not shown, since it may hold a password.
        """
        parts = urls.split(",") if isinstance(urls, str) else list(urls)
        self._urls = tuple(_checked(part.strip()) for part in parts if part.strip())
        if not self._urls:
            raise SubscriptionError("No URL of RabbitMQ is given. Pass one such as amqp://user:password@host:5672/.")

    def __iter__(self) -> Iterator[str]:
        return iter(self._urls)

    def __len__(self) -> int:
        return len(self._urls)

    def __repr__(self) -> str:
        return f"Hosts({', '.join(map(location, self._urls))})"


def location(url: str) -> str:
    """Return host and port of a URL, without credentials."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or _SCHEMES[parts.scheme]}"


def _checked(url: str) -> str:
    """Check a URL, and add the heartbeat if it has none."""
    try:
        parts = urlsplit(url)
        if parts.scheme not in _SCHEMES or not parts.hostname or parts.port == 0:
            raise ValueError  # noqa: TRY301 - as urlsplit does for a port that is no number
    except ValueError:
        raise SubscriptionError(
            "A URL of RabbitMQ is not valid. It has the form amqp://user:password@host:5672/ or amqps://..."
        ) from None
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    query.setdefault("heartbeat", str(_HEARTBEAT_S))
    return urlunsplit(parts._replace(query=urlencode(query)))
