"""The least that a secret must have where everybody can guess at it: on an address beyond loopback."""

from __future__ import annotations

_LEAST_CHARACTERS = 12  # of base64 these are 72 bits: more than anybody guesses over a network
_LEAST_DIFFERENT = 6


def weakness(secret: str) -> str | None:
    """Return why a secret is too easy to guess, with what to do, or None."""
    if len(secret) < _LEAST_CHARACTERS:
        count = f"{len(secret)} character{'' if len(secret) == 1 else 's'}"
        return f"has {count}, and {_LEAST_CHARACTERS} are the minimum beyond loopback. {_ADVICE}"
    if len(set(secret)) < _LEAST_DIFFERENT:
        return f"repeats {len(set(secret))} characters, and {_LEAST_DIFFERENT} different ones are the minimum. {_ADVICE}"
    return None


_ADVICE = "Create one with: openssl rand -hex 16."
