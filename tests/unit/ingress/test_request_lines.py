"""Request lines are repaired before the parser sees them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingress.request_lines import RequestLines
from tests.helpers.linear import assert_linear

TARGET = b"/callbacks/default?CallType=API&Event=pickup&CallID=%d&RequestID=7&ResponderAgent="


NAMES = (b"Ole%20Olsen", b"Ole Olsen", "Søren Ærø".encode(), b"J\xfcrgen", b" HTTP/1.1 ", b"a\tb", b"")


def _get(agent: bytes, number: int = 5) -> bytes:
    return b"GET " + TARGET % number + agent + b" HTTP/1.1\r\nHost: a b\r\n\r\n"


def _post(body: bytes, agent: bytes = b"x") -> bytes:
    return b"POST " + TARGET % 6 + agent + b" HTTP/1.1\r\nHost: x\r\nCONTENT-length: %d\r\n\r\n" % len(body) + body


def _written(request: bytes) -> bytes:
    """What the parser should get: the target percent-encoded, the rest as it came."""
    method, rest = request.split(b" ", 1)
    line, end, more = rest.partition(b"\r\n")
    target, _, version = line.rpartition(b" ")
    return method + b" " + re.sub(rb"[^!-~]", lambda byte: b"%%%02X" % byte[0][0], target) + b" " + version + end + more


REQUESTS = st.one_of(
    st.builds(_get, st.sampled_from(NAMES)),
    st.builds(_post, st.sampled_from([b"", b"Agent=O O", _get(b"O O"), b"\xff\r\n\r\n \r\n\r\n"]), st.sampled_from(NAMES)),
)


@given(st.lists(REQUESTS, min_size=1, max_size=5), st.lists(st.integers(0, 2000), max_size=8))
def test_only_targets_change_however_the_bytes_are_cut(requests: list[bytes], cuts: list[int]) -> None:
    stream, lines = b"".join(requests), RequestLines()
    at = sorted({0, len(stream), *(cut % len(stream) for cut in cuts)})
    got = [lines.feed(stream[start:end]) for start, end in itertools.pairwise(at)]
    assert b"".join(got) == b"".join(map(_written, requests))


@pytest.mark.parametrize(
    "endless", [b"GET /" + b"a " * 200_000, b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 100_000, b"\xff" * 100_000]
)
def test_what_is_held_back_is_bounded(endless: bytes) -> None:
    lines, passed = RequestLines(), 0
    for at in range(0, len(endless), 1000):
        passed += len(lines.feed(endless[at : at + 1000]))
        assert at + 1000 - passed <= 40_000  # of a line that is refused, more is passed on than came


@pytest.mark.parametrize(
    "make",
    [
        lambda size: b"GET" + b" " * size + b"x\r\n\r\n",
        lambda size: b"G" * size + b"\r\n\r\n",
        lambda size: b"GET /" + b" HTTP/1.1" * (size // 9) + b"x\r\n\r\n",
        lambda size: b"GET / HTTP/1.1\r\nContent-Length:" + b"\t" * size + b"x\r\n\r\n",
        lambda size: b"\r\n\r\n" * (size // 4),
        lambda size: b"GET / HTTP/1.1\r\nA: b\r\n\r\n" * (size // 24),
        lambda size: b"\xff" * size,
    ],
)
def test_a_segment_takes_time_by_its_length(make: Callable[[int], bytes]) -> None:
    assert_linear(lambda data: RequestLines().feed(data), make)
