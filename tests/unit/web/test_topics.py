"""Topics match what they match in RabbitMQ."""

from __future__ import annotations

import itertools
import time

import pytest

from shared.streams.events import topic_matcher
from tests.helpers.pace import PACE


@pytest.mark.parametrize("words", [("#", "x"), ("#", "*"), ("#", "a"), ("#", "a", "*"), ("#",)])
@pytest.mark.parametrize("key", ["call.completed.acme.answered", "a." * 126 + "b"])
def test_a_topic_of_many_wildcards_is_matched_in_no_time(words: tuple[str, ...], key: str) -> None:
    started = time.thread_time()
    topic_matcher(".".join((words * 127)[:127]) + ".y")(key)
    assert time.thread_time() - started < PACE  # a pattern that backtracks takes for ever


@pytest.mark.parametrize(
    "pattern", ["#", "a", "*", "a.#", "#.a", "a.*", "*.a", "#.#", "a.#.b", "#.a.#", "*.#", "#.*", "a.#.#.b", "*.#.*"]
)
def test_a_topic_matches_what_rabbitmq_matches(pattern: str) -> None:
    words = pattern.split(".")
    keys = [".".join(key) for size in range(1, 5) for key in itertools.product("abc", repeat=size)]
    found = {key for key in keys if topic_matcher(pattern)(key)}
    assert found == {key for key in keys if _matches(words, key.split("."))}


def _matches(pattern: list[str], key: list[str]) -> bool:
    if not pattern:
        return not key
    if pattern[0] == "#":
        return any(_matches(pattern[1:], key[skipped:]) for skipped in range(len(key) + 1))
    return bool(key) and pattern[0] in {"*", key[0]} and _matches(pattern[1:], key[1:])
