"""Topic patterns of RabbitMQ."""

from __future__ import annotations

from collections.abc import Callable


def topic_matcher(pattern: str) -> Callable[[str], bool]:
    """Return a function that matches routing keys with a topic pattern of RabbitMQ: `*` is one word, `#` any number of words.

    A regular expression would backtrack without end, for a pattern with many `#` and a key with many words.
    """
    parts = pattern.split(".")

    def matches(routing_key: str) -> bool:
        key = routing_key.split(".")
        at = part = begin = 0
        after_hash: int | None = None
        while at < len(key):
            if part < len(parts) and parts[part] == "#":
                begin, part = at, part + 1
                after_hash = part
            elif part < len(parts) and parts[part] in {"*", key[at]}:
                at, part = at + 1, part + 1
            elif after_hash is not None:  # the last `#` takes one word more; those before it need no more
                begin, part = begin + 1, after_hash
                at = begin
            else:
                return False
        return all(rest == "#" for rest in parts[part:])

    return matches
