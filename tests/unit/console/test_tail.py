"""`callfold tail`: which events belong to a span of time."""

from __future__ import annotations

from console.commands.tail import Span


def test_an_event_that_was_published_long_after_its_time_is_not_left_out() -> None:
    """A timer or an annotation publishes it. The journal alone knows where the span begins."""
    late = {"time": "2026-11-23T03:00:00.000000Z"}
    assert Span.of("2026-11-23T07:00:00Z", None).has(late)
    assert Span.of("2026-11-23T07:00:00Z", "2026-11-23T08:00:00Z").has(late)
    assert not Span.of(None, "2026-11-23T02:00:00Z").has(late)
