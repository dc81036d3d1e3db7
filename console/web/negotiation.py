"""Content negotiation by the `Accept` header (RFC 9110, 12.5.1)."""

from __future__ import annotations

from collections.abc import Sequence

_WHOLE_TYPE, _NO_TYPE = "/*", "*/*"


def preferred(accept: str, offered: Sequence[str]) -> str | None:
    """Return the offered media type that a client likes best; of equal ones the first. None if it accepts none of them."""
    wishes = _wishes(accept)
    if not wishes:
        return offered[0]
    weighted = [(_weight(media, wishes), -index, media) for index, media in enumerate(offered)]
    weight, _, media = max(weighted)
    return media if weight > 0 else None


def _wishes(accept: str) -> dict[str, float]:
    """Read the media ranges of a header with their weights. A weight that cannot be read is 1."""
    wishes = {}
    for wish in accept.split(","):
        media, *parameters = (part.strip().lower() for part in wish.split(";"))
        if media:
            wishes[media] = next((_q(value) for value in parameters if value.startswith("q=")), 1.0)
    return wishes


def _q(parameter: str) -> float:
    try:
        return min(max(float(parameter.removeprefix("q=")), 0.0), 1.0)
    except ValueError:
        return 1.0


def _weight(media: str, wishes: dict[str, float]) -> float:
    """Return the weight of the most specific range that a media type is in."""
    ranges = (media, media.partition("/")[0] + _WHOLE_TYPE, _NO_TYPE)
    return next((wishes[name] for name in ranges if name in wishes), 0.0)
