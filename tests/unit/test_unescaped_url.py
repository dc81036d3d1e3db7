"""A RecordingURL that the sender did not escape is put together; every other parameter keeps its value."""

from __future__ import annotations

from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.config.sources import load_sources
from shared.domain.adapter_link import Adapter, Placeholder, make_link, parse_link
from shared.domain.callback import parse_callback
from shared.domain.facts import facts_of
from shared.domain.ids import SourceName
from shared.domain.ignored import Reason
from shared.domain.leg import read_legs
from shared.domain.leg_event import CallType, LegEvent
from shared.domain.raw_event import CallbackEvent
from shared.domain.recording_link import IN_DOUBT, RecordingLink, read_link

URL = "https://localhost:8080/_cros_/master/?uid=form_faster_downloadcall&target=self&sectok=3511b272&nId=103870"
ADAPTER = parse_link(make_link("https://hooks", "acme", "s3cret-s3cret"))
LAST = parse_link("https://h/?Kind=a&CallType={{CallTypeName}}&Event={{DialApiEventName}}&CallID={{CallID}}&Url={{RecordingURL}}")
BEFORE = "CallType=Outgoing&Event=hangup&EventCode=1&CallID=7&RequestID=513&Guid="
AFTER = "&CallerID=1001&DID=&ResponderAgentExt=1001&ResponderAgent=Kasper&ResponderUserID=1&ResponderUserName=a&LastQueueName=q"


def _url(query: str, adapter: Adapter = ADAPTER) -> str | None:
    callback = parse_callback(adapter, query)
    assert (callback.call_type, callback.event, callback.call_id) == (CallType.OUTGOING, LegEvent.HANGUP, "7")
    if "CallerID" in query:
        assert (callback.extras.get("CallerID"), callback.extras.get("LastQueueName", "q")) == ("1001", "q")
    url = callback.extras.get(Placeholder.RECORDING_URL)
    return None if url is None else url.removesuffix(IN_DOUBT)


def _link(query: str, adapter: Adapter = ADAPTER) -> RecordingLink | None:
    url = parse_callback(adapter, query).extras.get(Placeholder.RECORDING_URL)
    return None if url is None else read_link(url)


@pytest.mark.parametrize("after", [AFTER, "", "&CallerID=1001", "&CallerID=1001&LastQueueName=q", "&token=x&CallerID=1001"])
@pytest.mark.parametrize(
    "sent",
    [
        URL, quote(URL, safe=""), quote(URL, safe=":/?"), quote(URL, safe="/"), quote(URL, safe=":/?="), quote(URL, safe=":/?&="), f"{URL}%20", f"{URL}+", f"%22{URL}%22", f"{URL}%0D%0A",
    ],
)  # fmt: skip
def test_the_pieces_of_a_url_are_put_together(sent: str, after: str) -> None:
    assert _url(f"{BEFORE}&RecordingURL={sent}{after}") == URL


@pytest.mark.parametrize(
    "url",
    [
        f"{URL}&a=b%2Fc+d%20e",
        "https://pbx/a%2Fb+c?q=%28x%29&f=%7E&empty=&flag",
        "https://pbx/rec?x=1&CallID=99&RequestID=1&nId=7",
        "https://pbx/rec?x=1&recordingurl=2&callerid=5&nId=7",
        "/rec?a=1&nId=7",
        "https://pbx/%C3%BC/%FC?nId=7",
        "https://pbx/rec?a=1&amp;nId=7",
    ],
)
def test_a_url_stays_as_it_was_sent(url: str) -> None:
    assert _url(f"{BEFORE}&RecordingURL={url}{AFTER}") == url
    assert _url(f"{BEFORE}&RecordingURL={quote(url, safe='')}{AFTER}") == url
    assert _url(f"CallType=Outgoing&Event=hangup&CallID=7&Url={url}", LAST) == url


def test_bytes_that_are_no_utf8_stay_these_bytes() -> None:
    assert _url(f"{BEFORE}&RecordingURL=https%3A%2F%2Fpbx%2FJ%FCrgen.wav{AFTER}") == "https://pbx/J%FCrgen.wav"


def test_parameters_that_a_proxy_appends_are_no_pieces_of_an_escaped_url() -> None:
    assert _url(f"{BEFORE}&RecordingURL={quote(URL, safe='')}{AFTER}&utm=1&ref=https://x?y") == URL
    assert _url(f"CallType=Outgoing&Event=hangup&CallID=7&Url={quote(URL, safe='')}&utm=1", LAST) == URL


@pytest.mark.parametrize(
    "sent", ["null", "N/A", "0", "-", "file:///x", "https://pbx/", "https%3A%2F%2Fpbx", "about:blank", "%20-%20"]
)
def test_what_is_no_url_is_ignored_and_not_shown(sent: str) -> None:
    query = f"{BEFORE}&RecordingURL={sent}{AFTER}"
    assert _url(query) is None
    assert [(each.placeholder, each.reason) for each in parse_callback(ADAPTER, query).ignored] == [
        (Placeholder.RECORDING_URL, Reason.NOT_A_URL)
    ]
    _, facts = facts_of(CallbackEvent(SourceName("acme"), "2026-11-23T07:44:00.000000Z", query), ADAPTER)
    assert ("leg:Outgoing:7:ignored.hangup.RecordingURL.not_a_url", "") in facts


def test_of_several_urls_the_usable_one_counts() -> None:
    assert _url(f"{BEFORE}&RecordingURL=null&RecordingURL={quote(URL, safe='')}{AFTER}") == URL
    facts = {"leg:API:7:hangup": "2026-11-23T07:44:00.000000Z", "leg:API:7:pickup": "2026-11-23T07:43:00.000000Z"}
    old = {"leg:API:7:url.hangup": "null", "leg:API:7:url.pickup": URL}
    assert [leg.recording_url for leg in read_legs(facts | old)[0]] == [URL]
    del old["leg:API:7:url.pickup"]
    assert [leg.recording_url for leg in read_legs(facts | old)[0]] == ["null"], "its summary stays that of the running release"


@given(
    st.lists(
        st.tuples(st.sampled_from(["nId", "CallID", "Event", "x", "CallerID", "token", ""]), st.text(max_size=9)), max_size=9
    )
)
def test_no_url_costs_a_call_its_own_values(pieces: list[tuple[str, str]]) -> None:
    url = "https://pbx/rec?a=1" + "".join(f"&{name}={quote(value, safe='')}" for name, value in pieces)
    callback = parse_callback(ADAPTER, f"{BEFORE}&RecordingURL={url}{AFTER}")
    assert (callback.call_id, callback.request_id, callback.extras["CallerID"], callback.extras["ResponderAgent"]) == (
        "7",
        513,
        "1001",
        "Kasper",
    )
    assert callback.extras[Placeholder.RECORDING_URL] == url.rstrip("+") or "%" in url


def test_the_default_source_does_so_too() -> None:
    (source,) = load_sources(None).values()
    assert _url(f"{BEFORE}&RecordingURL={URL}{AFTER}", source.adapter) == URL


TARGET = URL.removeprefix("https://localhost:8080")


@pytest.mark.parametrize("after", [AFTER, "", "&utm=1", f"{AFTER}&utm=1", "&CallerID=1001&x=1"])
@pytest.mark.parametrize("safe", ["", "/", ":", ":/", "/?", ":?", ":/?", ":/%", "=", ":/="])
def test_a_url_that_was_escaped_in_part_is_the_link_that_was_meant(safe: str, after: str) -> None:
    link = _link(f"{BEFORE}&RecordingURL={quote(URL, safe=safe)}{after}")
    assert link is not None
    assert link.target == TARGET
    assert link.is_certain or after not in {"", AFTER}


@pytest.mark.parametrize("safe", ["?=&", ":?=&", "/?=&", "&=", "/&=", "&=:", ":/=&", ":/?=&", ":/?=&%"])
def test_a_url_whose_separators_alone_were_not_escaped_is_put_together(safe: str) -> None:
    assert _link(f"{BEFORE}&RecordingURL={quote(URL, safe=safe)}{AFTER}") == RecordingLink(TARGET, is_certain=True)
    link = _link(f"{BEFORE}&RecordingURL={quote(URL, safe=safe)}&CallerID=1001")
    assert link == RecordingLink(TARGET, is_certain=False, is_in_doubt=True)


@pytest.mark.parametrize("first", ["", "/", ":/", ":/?", ":/?=", ":/="])
@pytest.mark.parametrize("second", ["", ":/", ":/?", ":/?=", ":/="])
def test_a_url_that_was_escaped_twice_is_never_the_only_one_that_can_be_meant(first: str, second: str) -> None:
    sent = quote(quote(URL, safe=first), safe=second)
    link = _link(f"{BEFORE}&RecordingURL={sent}{AFTER}")
    assert link is not None
    assert link.target == TARGET
    assert not link.is_certain or sent.count("%25") == 0


@pytest.mark.parametrize(
    ("url", "rest", "target"),
    [
        ("https://pbx/x?CallID=7&DID=9&nId=7", "&CallerID=1001", "/x?CallID=7&DID=9&nId=7"),
        ("https://pbx/x?CallID=7&DID=9", "", "/x?CallID=7"),
        ("https://pbx/x?uid=1&LastQueueName=sales&nId=7", "", "/x?uid=1&LastQueueName=sales&nId=7"),
        ("https://pbx/x?uid=1&CallerID=5&nId=7", "&CallerID=1001&DID=9", "/x?uid=1&CallerID=5&nId=7"),
        ("https://pbx/x%3Fuid=1&DID=9&nId=7", "", "/x?uid=1&DID=9&nId=7"),
        ("https:%2F%2Fpbx%2Fx%3Fuid=1&DID=9&nId=7", "", "/x?uid=1&DID=9&nId=7"),
        ("https://pbx/rec/Tom&Jerry.wav", "&CallerID=1001", "/rec/Tom"),
        ("https://pbx/rec/a%3Fb.wav", AFTER, "/rec/a?b.wav"),
        ("https://pbx/rec?x=a%26b", AFTER, "/rec?x=a&b"),
        ("https://pbx/rec?x=a%2520b&nId=7", AFTER, "/rec?x=a%20b&nId=7"),
        ("https://pbx/rec?x=a%2Bb&nId=7", AFTER, "/rec?x=a%2Bb&nId=7"),
        ("https://pbx/rec/a+b.wav", AFTER, "/rec/a+b.wav"),
        ("https://pbx/rec?x=a%26b=c", "&nId=7", "/rec?x=a&b=c"),
    ],
)  # fmt: skip
def test_a_url_that_may_be_cut_or_changed_proves_nothing(url: str, rest: str, target: str) -> None:
    query = f"{BEFORE}&RecordingURL={url}{rest}"
    assert _link(query) == RecordingLink(target, is_certain=False, is_in_doubt=True)
    fields = parse_callback(ADAPTER, query).extras
    assert fields.get("CallerID") == ("1001" if "CallerID=1001" in rest else None)
    assert fields.get("DID") == ("9" if "DID=9" in rest or target == "/x?CallID=7" else None)


def test_a_parameter_that_may_be_a_piece_of_a_url_is_not_used() -> None:
    callback = parse_callback(ADAPTER, f"{BEFORE}&RecordingURL=https://pbx/x?CallID=7&DID=9&nId=7&CallerID=1001")
    assert [each for each in callback.ignored if each.reason is Reason.IN_URL] == [("DID", "9", Reason.IN_URL)]
    needed = "RecordingURL=https://pbx/x?uid=1&nId=7&CallType=API&Event=hangup&CallID=7&RequestID=513&utm=1"
    callback = parse_callback(ADAPTER, needed)
    assert (callback.call_id, callback.request_id) == ("7", 513)
    assert _link(needed) == RecordingLink("/x?uid=1&nId=7", is_certain=False, is_in_doubt=True)


@pytest.mark.parametrize(
    "name",
    [" RecordingURL", "+RecordingURL", "recordingurl", "RECORDINGURL", "amp;RecordingURL", "%20RecordingURL", "?RecordingURL"],
)
def test_a_misspelled_name_has_a_whole_url_too(name: str) -> None:
    for sent in (URL, quote(URL, safe=":/"), quote(URL, safe="")):
        assert _link(f"{BEFORE}&{name}={sent}{AFTER}") == RecordingLink(TARGET, is_certain=True)


def test_the_usable_one_of_several_urls_is_whole_too() -> None:
    for first in ("", "null", "{{RecordingURL}}"):
        assert _url(f"{BEFORE}&RecordingURL={first}&RecordingURL={URL}{AFTER}") == URL


def test_of_several_events_a_url_that_was_not_cut_counts() -> None:
    facts = {"leg:API:7:hangup": "2026-11-23T07:44:00.000000Z", "leg:API:7:pickup": "2026-11-23T07:43:00.000000Z"}
    cut = {"leg:API:7:url.hangup": f"https://pbx/x?CallID=7{IN_DOUBT}"}
    assert [leg.recording_url for leg in read_legs(facts | cut)[0]] == [f"https://pbx/x?CallID=7{IN_DOUBT}"]
    assert [leg.recording_url for leg in read_legs(facts | cut | {"leg:API:7:url.pickup": URL})[0]] == [URL]
    assert [leg.recording_url for leg in read_legs(facts | {"leg:API:7:url.pickup": "null"})[0]] == ["null"]
    both = {"leg:API:7:url.hangup": "null", "leg:API:7:url.pickup": f"{URL}{IN_DOUBT}"}
    assert [leg.recording_url for leg in read_legs(facts | both)[0]] == [f"{URL}{IN_DOUBT}"]


def test_pieces_that_are_too_long_together_are_no_link() -> None:
    query = f"{BEFORE}&RecordingURL=https://pbx/x?uid=1&a={'a' * 8000}&b={'b' * 8000}&nId=7{AFTER}"
    assert _url(query) is None
    assert parse_callback(ADAPTER, query).call_id == "7"


_SAFE = st.text(alphabet=":/?=&%+#;,", max_size=5)
_SEGMENT = st.text(alphabet="ab7%20+", min_size=1, max_size=4)


@given(
    st.lists(_SAFE, max_size=3),
    st.lists(_SEGMENT, min_size=1, max_size=2),
    st.sampled_from([AFTER, "", "&CallerID=1001", "&CallerID=1001&utm=1"]),
)
def test_however_a_url_was_escaped_a_certain_link_is_the_one_that_was_meant(
    escapes: list[str], path: list[str], after: str
) -> None:
    meant = f"/{'/'.join(map(quote, path))}?uid=1&DID=9&name={quote(path[0], safe='')}&nId=7"
    sent = f"https://pbx{meant}"
    for safe in escapes:
        sent = quote(sent, safe=safe)
    link = _link(f"{BEFORE}&RecordingURL={sent}{after}")
    if link is not None and link.is_certain:
        assert unquote(link.target) == unquote(meant)
