"""Which of the offered media types a client gets."""

from __future__ import annotations

import pytest

from console.web.negotiation import preferred

_OFFERED = ("application/json", "application/vcon+json", "application/vcon")


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", "application/json"),
        (" , ", "application/json"),
        ("*/*", "application/json"),
        ("application/*", "application/json"),
        ("application/vcon+json", "application/vcon+json"),
        ("APPLICATION/VCON", "application/vcon"),
        ("application/vcon+json, application/json", "application/json"),
        ("application/vcon+json, application/json;q=0.5", "application/vcon+json"),
        ("application/vcon+json;q=0.4, */*;q=0.5", "application/json"),
        ("application/json;q=0, */*", "application/vcon+json"),
        ("application/vcon+json;q=much", "application/vcon+json"),
        ("text/html", None),
        ("application/json;q=0", None),
        ("text/html, */*;q=0", None),
    ],
)
def test_the_media_type_that_the_client_likes_best_is_sent(accept: str, expected: str | None) -> None:
    assert preferred(accept, _OFFERED) == expected
