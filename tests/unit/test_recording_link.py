"""What a RecordingURL means: the link that the PBX meant, or none."""

from __future__ import annotations

from urllib.parse import quote, quote_plus, unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.domain.recording_link import RecordingLink, decode_link, is_link, read_link, to_ascii

VENDOR = "https://localhost:8080/_cros_/master/?uid=form_faster_downloadcall&target=self&sectok=3511b272&nId=103870"
TARGET = "/_cros_/master/?uid=form_faster_downloadcall&target=self&sectok=3511b272&nId=103870"


@pytest.mark.parametrize(
    "sent",
    [
        "", " ", "\r\n", "{{RecordingURL}}", "%7B%7BRecordingURL%7D%7D", "{{ RecordingURL }}", "null", "NULL", "(null)", "None", "N/A", "n/a",
        "0", "-", "1", "false", "undefined", "about:blank", "javascript:alert(1)", "data:audio/wav;base64,UklGRg==", "file:///rec/7.wav",
        "ftp://pbx/7.wav", "sip:1001@pbx", "https", "https:", "https://", "https:///", "https:///x", "https://pbx", "https://pbx/", "https://pbx//",
        "https://pbx/#x", "https://pbx:8080", "https://pbx?", "http://[not-an-address/x?nId=7", "/", "//", "//pbx", "//pbx/", "localhost:8080",
        "localhost:8080/", "7.wav", "recordings/7.wav", "C:\\rec\\7.wav", "\\\\pbx\\rec\\7.wav", "https://pbx/rec?nId={{CallID}}",
        "https://pbx/a\r\nHost: evil/x", "https://pbx/a\tb", "https://pbx/a\0b", "%", "%%%", "%2", "Not recorded", "recording not available/yet",
        "https://pbx/_cros_/master/?uid=form_faster_downloadcall", "https://pbx/_cros_/master/?uid=form_faster_downloadcall&target=self&nId=",
        "https://pbx/_cros_/master/?uid=form_faster_downloadcall&nId=null", "https://pbx/_cros_/master/?uid=form_faster_downloadcall&nId=0",
        "https://pbx/rec?nId=%7B%7BCallID%7D%7D", "https://pbx/rec/%257b%257bCallUUID%257D%257D.wav", "https://https://", '""', "''", "<>", "[]", "{}",
    ],
)  # fmt: skip
def test_what_names_no_recording_is_no_link(sent: str) -> None:
    assert read_link(sent) is None
    assert not is_link(sent)


@pytest.mark.parametrize(
    "sent",
    [
        VENDOR, f" {VENDOR}", f"{VENDOR} ", f"{VENDOR}\r\n", f'"{VENDOR}"', f"'{VENDOR}'", f"<{VENDOR}>", f"\ufeff{VENDOR}\u200b", f"\t<'{VENDOR}'>\n",
        VENDOR.replace("https", "HTTP"), VENDOR.replace("https", "HttpS"), f"{VENDOR}#fragment", VENDOR.replace("//localhost", "//u:p@localhost"),
        VENDOR.replace("localhost:8080", "[fd00::5]:8080"), VENDOR.replace("localhost:8080", "pbx.m\xfcller.example"),
    ],
)  # fmt: skip
def test_a_url_is_taken_as_it_was_sent(sent: str) -> None:
    assert read_link(sent) == RecordingLink(TARGET, is_certain=True)


@pytest.mark.parametrize(
    "sent",
    [
        quote(VENDOR, safe=""), quote(quote(VENDOR, safe=""), safe=""), quote_plus(VENDOR), quote(VENDOR), quote(VENDOR, safe="").lower().replace("id", "Id"),
        quote(f' "{VENDOR}"\r\n', safe=""), VENDOR.replace("/", "\\/"), VENDOR.replace("&", "\\u0026"), VENDOR.replace("&", "&amp;"),
        VENDOR.replace("/", "\\"), VENDOR.removeprefix("https://"), VENDOR.removeprefix("https:"), VENDOR.removeprefix("https://localhost:8080"),
        VENDOR.replace("https://localhost:8080", "pbx.example.com"), VENDOR.replace("https://localhost:8080", "10.0.0.5"),
        VENDOR.replace("//", "/", 1), f"https://{VENDOR}", f"http://HTTPS://{VENDOR}", quote(VENDOR.removeprefix("https://"), safe=""),
    ],
)  # fmt: skip
def test_what_can_be_mended_is_mended(sent: str) -> None:
    link = read_link(sent)
    assert link is not None
    assert unquote(link.target).lower() == TARGET.lower()
    assert not link.is_certain, "the PBX may not have meant this link"


@pytest.mark.parametrize(
    "target",
    [
        "/rec/null.wav", "/rec?id=undefined", "/rec/None", "/rec?nId=NaN&x=1", "/rec?id=", "/rec?x=1&CallId=0", "/rec?id=-1",
        "/rec/.wav", "/rec/{guid}.wav", "/rec?id=%7bid%7D",
    ],
)  # fmt: skip
def test_a_link_with_a_value_that_is_none_proves_nothing(target: str) -> None:
    assert read_link(f"https://pbx{target}") == RecordingLink(target, is_certain=False)


@pytest.mark.parametrize(
    "target",
    [
        "/a%2Fb%28c%29%7E?x=%5b1%5D",
        "/a[1]'(b)~!$*,;:@",
        "/a?e=a+b%20c&f=%2f%2F",
        "/a?b?c",
        "/%zz%",
        "//a//b",
        "/a/?",
        "/a;b=1?a;b",
        '/a?b="c"|^`{d}',
    ],
)
def test_a_link_stays_byte_for_byte(target: str) -> None:
    link = read_link(f"https://pbx{target}")
    assert link is not None
    assert link.target == target


def test_other_bytes_than_ascii_are_escaped_and_never_changed() -> None:
    assert read_link("https://pbx/J\xfcrgen r.wav") == RecordingLink("/J%C3%BCrgen%20r.wav", is_certain=True)
    assert decode_link("https%3A%2F%2Fpbx%2FJ%FCrgen+r.wav%3Fa%3D%2525") == "https://pbx/J%FCrgen r.wav?a=%25"
    with pytest.raises(ValueError, match="control"):
        to_ascii("/a\r\nb")


@given(st.text())
@example("https://pbx/\ud800")
@example("%41\ud800")
@example("https://pbx/" + "%25" * 3000)
def test_any_value_is_read_and_what_is_requested_fits_a_request_line(sent: str) -> None:
    for value in (sent, f"https://pbx/{sent}", f"pbx:80/{sent}"):
        link = read_link(value)
        assert is_link(value) is (link is not None)
        if link is not None:
            assert all("!" <= character <= "~" for character in link.target)
            assert link.target.startswith("/")
            assert "#" not in link.target
