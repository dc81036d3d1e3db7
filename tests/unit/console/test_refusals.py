"""What was refused in the last day is said in words, with what to do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from console.live.snapshot import Snapshot
from console.page.live_view import live_view
from console.refusals import RefusalTotals
from shared.domain.quarantined import Refusal, RefusalCount, RefusalCounts, decode_quarantined, encode_counts, may_be_counts
from shared.domain.times import rfc3339


def _counts(*counts: RefusalCount, hours_ago: float = 0) -> RefusalCounts:
    body = encode_counts(rfc3339(datetime.now(UTC) - timedelta(hours=hours_ago)), counts)
    assert may_be_counts(body)
    decoded = decode_quarantined(body)
    assert isinstance(decoded, RefusalCounts)
    return decoded


def test_counts_are_summed_by_reason_and_source_for_a_day() -> None:
    totals = RefusalTotals()
    totals.add(_counts(RefusalCount("wrong_secret", "acme", 2, "192.0.2.1"), hours_ago=23))
    totals.add(_counts(RefusalCount("wrong_secret", "acme", 3, "192.0.2.7"), RefusalCount("not_http", "", 1, "192.0.2.9")))
    totals.add(_counts(RefusalCount("wrong_secret", "acme", 99, "192.0.2.8"), hours_ago=26))
    assert totals.count() == 6
    assert totals.has_callbacks()
    assert totals.sentences() == [
        (
            "5 requests were refused for acme, without the right secret, the last from 192.0.2.7. "
            "Compare with `callfold adapter-link`; `callfold quarantine list` shows them."
        ),
        "1 request was refused, not valid HTTP, the last from 192.0.2.9. Find the client, or the proxy in front.",
    ]


def test_what_every_port_of_the_internet_gets_is_counted_and_no_alarm() -> None:
    totals = RefusalTotals()
    totals.add(_counts(RefusalCount("unknown_source", "", 5, "192.0.2.1"), RefusalCount("not_http", "", 1, "192.0.2.1")))
    assert (totals.count(), totals.has_callbacks()) == (6, False)


def test_every_reason_has_words() -> None:
    for reason in [*Refusal, "of a later release"]:
        totals = RefusalTotals()
        totals.add(_counts(RefusalCount(reason, "", 1, "192.0.2.1")))
        (sentence,) = totals.sentences()
        assert sentence.endswith(".")
        assert ("which does not know the reason" in sentence) == (reason == "of a later release")


def test_the_live_page_shows_the_count() -> None:
    at = "2026-11-23T07:44:00.000000Z"
    snapshot = Snapshot(
        at, at, [], 0, None, [], [], {}, {}, refused_count=7, refusals=["7 were refused."], has_refused_callbacks=True
    )
    view = live_view(snapshot)
    (counter,) = [counter for counter in view.counters if counter.name == "Refused in a day"]
    assert (counter.value, counter.alarm, view.refusals) == ("7", True, ["7 were refused."])
