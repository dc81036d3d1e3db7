from __future__ import annotations

import pytest

from shared.domain.adapter_link import (
    SAMPLE_LINK,
    Placeholder,
    make_link,
    parse_link,
    take_secret,
)
from shared.domain.callback_query import read_query
from shared.domain.ignored import Reason
from shared.errors import ConfigError

SAMPLE = parse_link(SAMPLE_LINK)


def test_the_vendors_sample_link_is_understood() -> None:
    assert SAMPLE.meanings == {
        "CallType": "CallTypeName",
        "Event": "DialApiEventName",
        "CallID": "CallID",
        "RequestID": "DialApiRequestID",
        "EventCode": "DialApiEventCode",
        "IsCallRecorded": "IsCallRecorded",
        "Guid": "CallUUID",
    }
    assert SAMPLE.secret is None


def test_names_order_extras_constants_and_the_secret_are_free() -> None:
    adapter = parse_link(
        "https://h/cb?x={{CallID}}&token=s3%20cret&tenant=north&e={{DialApiEventCode}}"
        "&t=%7B%7BCallTypeCode%7D%7D&new={{ BrandNew }}"
    )
    assert adapter.meanings == {"x": "CallID", "e": "DialApiEventCode", "t": "CallTypeCode", "new": "BrandNew"}
    assert adapter.constants == {"tenant": "north"}
    assert adapter.secret == "s3 cret"
    assert "s3 cret" not in repr(adapter)


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        ("{{CallTypeName}}", "{{CallTypeName}} or {{CallTypeCode}}"),
        ("{{DialApiEventName}}", "{{DialApiEventName}} or {{DialApiEventCode}}"),
        ("{{CallID}}", "{{CallID}}"),
    ],
)
def test_a_link_that_cannot_tie_callbacks_to_calls_is_refused_by_name(missing: str, named: str) -> None:
    link = SAMPLE_LINK.replace(missing, "1").replace("{{DialApiEventCode}}", "1")
    with pytest.raises(ConfigError) as refused:
        parse_link(link)
    assert named in str(refused.value)


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ("https://h/cb", "no parameters"),
        (SAMPLE_LINK + "&CallID=1", "CallID twice"),
        (SAMPLE_LINK + "&z=a{{DID}}b", "z mixes text"),
        (SAMPLE_LINK + "&again={{CallID}}", "CallID in more than one"),
    ],
)
def test_a_link_that_means_two_things_is_refused(link: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_link(link)


def test_the_link_to_paste_has_every_placeholder_and_is_read_back() -> None:
    link = make_link("https://hooks.example.com/", "acme", "s&cret=1")
    adapter = parse_link(link)
    assert link.startswith("https://hooks.example.com/callbacks/acme?token=s%26cret%3D1&")
    assert set(adapter.meanings.values()) == {str(p) for p in Placeholder}
    assert adapter.secret == "s&cret=1"


@pytest.mark.parametrize(
    ("query", "secret", "rest"),
    [
        ("a=1&token=x&b=2", "x", "a=1&b=2"),
        ("token=x%26y", "x&y", ""),
        ("%74oken=x&a=1", "x", "a=1"),
        ("a=1&token=x&token=y", "x", "a=1"),
        ("a=token&b=%20", None, "a=token&b=%20"),
        ("", None, ""),
    ],
)
def test_the_secret_is_taken_out_and_the_rest_kept_byte_for_byte(query: str, secret: str | None, rest: str) -> None:
    assert take_secret(query) == (secret, rest)


def test_values_are_decoded_and_what_is_empty_or_foreign_is_left_out() -> None:
    told = read_query(SAMPLE, "CallID=12&Guid=&Event=pick%75p&foreign=1&CallType=A+B")
    assert told.values == {"CallID": "12", "DialApiEventName": "pickup", "CallTypeName": "A B"}


def test_of_a_parameter_sent_twice_both_values_are_kept_if_they_differ() -> None:
    assert read_query(SAMPLE, "CallID=12&CallID=12")[:2] == ({"CallID": "12"}, [])
    assert read_query(SAMPLE, "CallID=12&CallID=13")[:2] == ({"CallID": "12"}, [("CallID", "13")])


def test_bytes_that_are_no_utf8_are_read_as_cp1252_and_noted() -> None:
    told = read_query(SAMPLE, "Event=%ff%fe")
    assert told.values == {"DialApiEventName": "ÿþ"}
    assert told.ignored == [("DialApiEventName", "%ff%fe", Reason.NOT_UTF8)]
