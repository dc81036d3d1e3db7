"""What reads text that an attacker chooses takes time by its length: nothing in it is looked at again and again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from urllib.parse import quote

import pytest

from console.page.text import body, clip
from console.safe_text import plain, plain_line
from shared.domain.adapter_link import make_link, parse_link, take_secret
from shared.domain.callback import parse_callback
from shared.domain.ids import CallKey, CallRef, SourceName
from shared.domain.raw_event import CallbackEvent, decode
from shared.errors import InvalidCallbackError
from shared.masking import is_credential, mask_credentials, mask_value
from shared.partial_values import mask, shorten_name
from shared.percent_encoding import bytes_of, decode_bytes, decode_repeatedly, decode_with_places
from tests.helpers.linear import assert_linear
from tests.helpers.volume import sizes
from worker.folding.batch import Batch

Make = Callable[[int], str]


def _repeated(text: str) -> Make:
    return lambda size: text * (size // len(text))


def _every_depth(text: str) -> Make:
    """Make a text for each depth of encoding, one after the other: `{}` is what the depth adds to each `%`."""

    def make(size: int) -> str:
        parts: list[str] = []
        length = 0
        while length < size:
            parts.append(text.replace("{}", "25" * len(parts)))
            length += len(parts[-1])
        return "".join(parts) + "token"

    return make


TEXTS: dict[str, Make] = {
    "nested": lambda size: "token=%" + "25" * (size // 2) + "3D",
    "nested operator": lambda size: "%" + "25" * (size // 2) + "3Dtoken=x",
    "nested without 25": lambda size: "token%4" + "%3" * (size // 2) + "1=",
    "many nested": _repeated("%" + "25" * 90 + "3Dtoken"),
    "many nested names": _repeated("%" + "25" * 50 + "74oken=x&"),
    "many nested names without 25": _repeated("%4" + "%3" * 95 + "1=token"),
    "nested with 3D and 26": _repeated("token%3Da%26"),
    "nested with 253D and 26": _repeated("token%253Da%26"),
    "nested with 3D and 2526": _repeated("token%3Da%2526"),
    "every depth of 26": _every_depth("token%{}3Da%26"),
    "every depth of quotes": _every_depth("token%3D%{}22a%26"),
    "deep quotes": _repeated("token%3D%" + "25" * 30 + "22" + "%25" * 20 + "%26"),
    "a deep quote, and nearly as deep ones": lambda size: (
        "token=%" + "25" * 999 + "22" + ("%" + "25" * 998 + "21") * (size // 2000)
    ),
    "quotes": lambda size: "token=" + "\"'" * (size // 2),
    "backslashes": lambda size: 'token="' + "\\" * size,
    "backslashes and quotes": _repeated('token="\\"'),
    "quotes of both kinds": _repeated('token="a\'b\\"c\\\\'),
    "quotes in links": _repeated('token%3D"a%26'),
    "encoded quotes in links": _repeated("token%3D%22a%26"),
    "slashes and at": _repeated("//@"),
    "slashes": _repeated("//token"),
    "hosts": _repeated("//a token"),
    "a long host": lambda size: "//" + "a" * size + "@token",
    "backslashes and a slash": lambda size: "token" + "\\" * size + "/",
    "encoded slashes": lambda size: "%2F%2F" * (size // 6) + "@token",
    "encoded slashes of every depth": _every_depth("%{}2F%{}2Fa"),
    "encoded slashes, other slashes and at": lambda size: "%2F%2F" + "a%252F%2540" * (size // 11) + "token",
    "equals": lambda size: "=" * size + "token",
    "colons": lambda size: ":" * size + "token",
    "ampersands": lambda size: "&" * size + "token",
    "percents": lambda size: "%" * size + "token",
    "names": _repeated("token="),
    "pairs": _repeated("token=a&"),
    "empty pairs": _repeated("token=&"),
    "lists": _repeated('"token":["a",'),
    "lists in links": _repeated('"token"%3A["a"%26'),
    "unfinished lists in links": _repeated('"token"%3A[a%26'),
    "brackets": lambda size: "[" * size + "token",
    "cookies": _repeated("cookie:"),
    "cookies in links": _repeated("cookie%3Aa%26"),
    "lines of cookies": _repeated("cookie: a\\n"),
    "a cookie with quotes": lambda size: "cookie: " + '" ' * (size // 2),
    "a cookie with nested encodings": lambda size: "cookie: " + ("%" + "25" * 50 + "0") * (size // 102),
    "bearers": _repeated("bearer "),
    "a bearer and spaces": lambda size: "bearer" + " " * size,
    "bearers in links": _repeated("token%3Dbearer%20%26"),
    "tuples": _repeated('(   "token",   '),
    "spaces before operators": _repeated("token" + " " * 190 + "="),
    "quotes before operators": _repeated("token" + '\\"' * 90 + "="),
    "letters that are not ASCII": _repeated("t\N{LATIN SMALL LETTER O WITH STROKE}ken=token=\N{KELVIN SIGN}&"),
}
named = pytest.mark.parametrize("name", TEXTS)


@named
@pytest.mark.parametrize("largest", sizes(1 << 15, 1 << 20))
def test_masking_takes_time_by_the_length_of_the_text(name: str, largest: int) -> None:
    assert_linear(mask_credentials, TEXTS[name], largest=largest)


READERS: dict[str, Callable[[str], object]] = {
    "is_credential": is_credential,
    "mask_value": lambda text: mask_value(text, text),
    "decode_repeatedly": decode_repeatedly,
    "take_secret": take_secret,
    "decode_bytes": lambda text: decode_bytes(bytes_of(text)),
    "decode_with_places": lambda text: decode_with_places(bytes_of(text)),
    "plain": plain,
    "plain_line": plain_line,
    "clip": clip,
    "body": body,
    "mask": mask,
    "shorten_name": shorten_name,
    "decode": lambda text: decode(b"[" + text.encode() + b"]"),
}
# Those of every kind that any of the readers looks for.
SOME = (
    "nested",
    "nested without 25",
    "many nested names without 25",
    "quotes",
    "backslashes",
    "equals",
    "ampersands",
    "brackets",
    "percents",
)


@pytest.mark.parametrize("text", SOME)
@pytest.mark.parametrize("reader", READERS)
def test_what_reads_values_takes_time_by_their_length(reader: str, text: str) -> None:
    assert_linear(READERS[reader], TEXTS[text], largest=1 << 17)


@pytest.mark.parametrize(
    "url", ["+", "%20", "%3F", "%26", "%253D", "%26a", "%25", "&a=", "&CallerID=1", "&RecordingURL=https://x?"]
)
def test_a_url_that_was_not_escaped_is_read_in_time_by_its_length(url: str) -> None:
    adapter = parse_link(make_link("http://a", "acme", None))

    def read(text: str) -> None:
        with suppress(InvalidCallbackError):
            parse_callback(adapter, text)

    assert_linear(read, lambda size: "CallID=1&RecordingURL=https://x?a" + url * (size // len(url)) + "x", largest=1 << 17)


def test_the_refusal_of_events_of_one_call_takes_time_by_their_number() -> None:
    key = CallKey(SourceName("acme"), CallRef("7"))
    event = CallbackEvent(key.source, "2026-11-23T07:44:00.000000Z", "CallID=1")

    def refuse(text: str) -> None:
        count = len(text)
        batch = Batch(facts={key: [[]] * count}, events={key: [event] * count})
        assert len(batch.refuse(key, list(range(count)))) == count

    assert_linear(refuse, lambda size: "x" * size, largest=1 << 15)


@pytest.mark.parametrize("text", SOME)
@pytest.mark.parametrize("before", ["CallerID=", "foreign=", "RecordingURL=", "", "foreign=1&" * 50])
def test_a_callback_is_parsed_or_refused_in_time_by_its_length(before: str, text: str) -> None:
    adapter = parse_link(make_link("https://h", "acme", None))

    def parse(query: str) -> None:
        with pytest.raises(InvalidCallbackError):
            parse_callback(adapter, query)

    for write in (str, quote):
        assert_linear(parse, lambda size: before + write(TEXTS[text](size)), largest=1 << 17)  # noqa: B023 - called before the next round
