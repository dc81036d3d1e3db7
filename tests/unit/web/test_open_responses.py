"""Responses that stay open for long are limited, for each key and in total."""

from __future__ import annotations

from contextlib import ExitStack

import orjson

from console.web.open_responses import OpenResponses


def test_no_key_has_more_open_responses_than_its_limit_nor_have_all_together() -> None:
    opened = OpenResponses("downloads", per_key=2, total=3)
    with ExitStack() as closing:
        for key in ("a", "a", "b"):
            assert opened.refuse_beyond(key) is None
            closing.enter_context(opened.one(key))
        for key, status in (("a", 429), ("b", 503), ("c", 503)):
            refusal = opened.refuse_beyond(key)
            assert refusal is not None
            assert (refusal.status, "Retry-After" in refusal.headers) == (status, True)
            assert isinstance(refusal.body, bytes)
            assert "open downloads, the maximum" in orjson.loads(refusal.body)["title"]
    assert opened.refuse_beyond("a") is None
