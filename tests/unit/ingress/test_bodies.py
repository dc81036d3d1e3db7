"""A POST is a callback whatever form its body has, and a body that cannot be understood is kept byte for byte."""

from __future__ import annotations

import gzip
import json
from base64 import b64decode, b64encode
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qsl, quote

import orjson
import pytest
import structlog
from hypothesis import example, given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from ingress.body_formats import UnreadableBodyError, find_body_secret, to_query
from shared.domain.unread_body import readable
from tests.helpers.linear import assert_linear
from tests.helpers.raw_http import connected_to, post
from tests.helpers.site import Site, Start, site_of

SECRET = "hunter2/hunter2"
MEMBERS = {"CallType": "API", "Event": "pickup", "CallID": "77", "RequestID": "513", "ResponderAgent": "Jørgen & Søn"}
QUERY = "CallType=API&Event=pickup&CallID=77&RequestID=513&ResponderAgent=J%C3%B8rgen%20%26%20S%C3%B8n"
FORM = "application/x-www-form-urlencoded"
KIB_64 = 64 * 1024


def _json(**more: object) -> bytes:
    return json.dumps(MEMBERS | more).encode()


def _multipart(*pairs: tuple[str, str], line: str = "\r\n", head: str = "", quoted: str = '"') -> bytes:
    parts = [
        f"--x{line}Content-Disposition: form-data; name={quoted}{name}{quoted}{line}{head}{line}{value}{line}"
        for name, value in pairs
    ]
    return f"{''.join(parts)}--x--{line}".encode()


@pytest.fixture
def start(tmp_path: Path) -> Start:
    return site_of(tmp_path, f'[sources.acme]\nsecret = "{SECRET}"\n[sources.open]\n')


async def _answer(site: Site, target: str, content_type: str | None, body: bytes, *headers: str) -> tuple[int, bytes]:
    raw = post(target, f"Content-Type: {content_type}", *headers, body=body)
    if content_type is None:
        raw = raw.replace(b"Content-Type: None\r\n", b"")
    async with connected_to(site.port) as connection:
        await connection.send(raw)
        return await connection.response()


PAIRS = [("token", SECRET), *MEMBERS.items()]
BODIES = {
    "json": ("application/json", _json(token=SECRET)),
    "json with a charset": ("application/json; charset=utf-8", _json(token=SECRET)),
    "json of another name": ("text/json", _json(token=SECRET)),
    "json of a vendor": ("application/vnd.acme.call+json;v=1", _json(token=SECRET)),
    "json in upper case": ("Application/JSON", _json(token=SECRET)),
    "json whose token is escaped": ("application/json", _json(token=SECRET).replace(b"/", b"\\/")),
    "json with a mark in front": ("application/json", b"\xef\xbb\xbf" + _json(token=SECRET)),
    "json in latin-1": ("application/json; charset=ISO-8859-1", json.dumps(dict(PAIRS), ensure_ascii=False).encode("latin-1")),
    "json without a type": (None, b"\r\n " + _json(token=SECRET)),
    "json with an empty type": ("", _json(token=SECRET)),
    "json named a form": (FORM, _json(token=SECRET)),
    "form named json": ("application/json", f"token={SECRET}&{QUERY}".encode()),
    "form without a type": (None, f"token={SECRET}&{QUERY}".encode()),
    "form with a charset": (f"{FORM}; charset=UTF-8", f"token={SECRET}&{QUERY}".encode()),
    "form with html in it": (FORM, f"token={SECRET}&amp;{QUERY.replace('&', '&amp;')}".encode()),
    "multipart": ("multipart/form-data; boundary=x", _multipart(*PAIRS)),
    "multipart with a quoted boundary": ('multipart/form-data; boundary="x"', _multipart(*PAIRS)),
    "multipart with plain lines": ("multipart/form-data; boundary=x", _multipart(*PAIRS, line="\n")),
    "multipart with plain names": ("multipart/form-data; boundary=x", _multipart(*PAIRS, quoted="")),
    "multipart with types": (
        "multipart/form-data; boundary=x",
        _multipart(*PAIRS, head="Content-Type: text/plain; charset=utf-8\r\n"),
    ),
    "multipart without its boundary": ("multipart/form-data", _multipart(*PAIRS)),
    "multipart without a type": (None, _multipart(*PAIRS)),
    "multipart with encoded names": (
        "multipart/form-data; boundary*=utf-8''x",
        b"".join(f"--x\r\nContent-Disposition: form-data; name*=us-ascii''{n}\r\n\r\n{v}\r\n".encode() for n, v in PAIRS)
        + b"--x--",
    ),
    "multipart whose token is in base64": (
        "multipart/form-data; boundary=x",
        _multipart(("token", b64encode(SECRET.encode()).decode()), head="Content-Transfer-Encoding: base64\r\n")[
            : -len("--x--\r\n")
        ]
        + _multipart(*MEMBERS.items()),
    ),
    "json in utf-16": ("application/json", _json(token=SECRET).decode().encode("utf-16")),
    "json in utf-16 without a mark": ("application/json", _json(token=SECRET).decode().encode("utf-16-le")),
    "json in utf-16 without a type": (None, _json(token=SECRET).decode().encode("utf-16-be")),
    "json in utf-32": ("application/json", _json(token=SECRET).decode().encode("utf-32")),
    "json whose name is escaped": ("application/json", _json(token=SECRET).replace(b'"token"', b'"t\\u006fken"')),
    "form with a question mark": (FORM, f"?token={SECRET}&{QUERY}".encode()),
    "form that is escaped as a whole": (FORM, quote(f"token={SECRET}&{QUERY}", safe="").encode()),
    "form with semicolons": (FORM, f"token={SECRET};{QUERY.replace('&', ';')}".encode()),
    "form with semicolons and the token last": (FORM, f"{QUERY.replace('&', ';')};token={SECRET}".encode()),
    "form whose token has a line end": (FORM, f"{QUERY}&token={SECRET}%0D%0A".encode()),
    "form whose token is encoded twice": (FORM, f"{QUERY}&token={quote(quote(SECRET, safe=''))}".encode()),
}


@pytest.mark.parametrize("name", BODIES)
async def test_every_format_means_the_same(start: Start, name: str) -> None:
    content_type, body = BODIES[name]
    async with start() as site:
        assert (await _answer(site, "/callbacks/acme", content_type, body))[0] == 200
        (event,) = site.accepted
        assert parse_qsl(orjson.loads(event)["query"]) == [*MEMBERS.items()]
        assert SECRET.encode() not in event


async def test_the_token_may_be_in_the_query_and_the_callback_in_a_body(start: Start) -> None:
    async with start() as site:
        assert (await _answer(site, f"/callbacks/acme?token={SECRET}", "application/json", _json()))[0] == 200
        assert orjson.loads(site.accepted[0])["query"] == QUERY


def _without_right_token(body: bytes) -> bytes:
    for encoding in ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le"):
        body = body.replace("hunter2".encode(encoding), "hunter3".encode(encoding))
    return body.replace(b64encode(SECRET.encode()), b64encode(b"hunter3"))


@pytest.mark.parametrize("name", BODIES)
async def test_a_wrong_token_is_refused_in_every_format(start: Start, name: str) -> None:
    content_type, body = BODIES[name]
    wrong = _without_right_token(body)
    async with start() as site:
        assert (await _answer(site, "/callbacks/acme", content_type, wrong))[0] == 401
        assert (await _answer(site, "/callbacks/acme", content_type, wrong.replace(b"token", b"other")))[0] == 401
        assert (site.accepted, site.dead_letters) == ([], [])


VALUES: list[tuple[str, str]] = [
    ('{"a": 1000000087849}', "a=1000000087849"),
    ('{"a": 1.000000087849E12, "b": 5.0, "c": 0.5, "d": -1}', "a=1000000087849&b=5&c=0.5&d=-1"),
    ('{"a": 1e999999999, "b": 1e99999999999999999999999}', "a=1e999999999&b=1e99999999999999999999999"),
    ('{"a": 12345678901234567890123456789012345678901234567890}', "a=12345678901234567890123456789012345678901234567890"),
    ('{"a": true, "b": false, "c": null, "d": "", "e": [], "f": {}}', "a=1&b=0&c=&d=&e=&f="),
    ('{"a": "1", "a": "2"}', "a=1&a=2"),
    ('{"a": {"b": [1, "x"]}}', "a=%7B%22b%22%3A%20%5B%221%22%2C%20%22x%22%5D%7D"),
    ('{"a": "\\ud800"}', "a=%ED%A0%80"),
    ('{"a b": "c&d=e"}', "a%20b=c%26d%3De"),
    ("{}", ""),
]


@pytest.mark.parametrize(("body", "query"), VALUES)
def test_a_member_is_a_parameter(body: str, query: str) -> None:
    assert to_query("application/json", body.encode()) == query


def test_bytes_of_another_encoding_stay_as_they_are() -> None:
    assert to_query("application/json", b'{"a": "J\xfcrgen"}') == "a=J%FCrgen"
    assert (
        to_query("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nJ\xfc\r\n--x--')
        == "a=J%FC"
    )
    assert to_query("application/json", '{"a": "ø"}'.encode("utf-16")) == "a=%C3%B8"


def test_a_field_of_a_multipart_form_can_be_encoded_and_have_several_lines() -> None:
    head = "Content-Transfer-Encoding: {}\r\n"
    as_base64 = _multipart(("a", "c2FsZXM="), head=head.format("base64"))
    as_printable = _multipart(("a", "s=61les"), head=head.format("quoted-printable"))
    for body in (as_base64, as_printable):
        assert to_query("multipart/form-data; boundary=x", body) == "a=sales"
    assert to_query("multipart/form-data; boundary=x", _multipart(("a", "1\r\n--y\r\n2"))) == "a=1%0D%0A--y%0D%0A2"


UNREADABLE = {
    "xml": ("text/xml", b"<call id='77'>\xff\x00\r\n</call>", 415),
    "text": ("text/plain", b"CallID=77", 415),
    "bytes": ("application/octet-stream", bytes(range(256)), 415),
    "nothing known": (None, b"\x00\x01\x02", 415),
    "cut json": ("application/json", b'{"CallType": "API", "Event"', 400),
    "a list": ("application/json", b'[{"CallType": "API"}]', 400),
    "a string": ("application/json", b'"CallType"', 400),
    "deep json": ("application/json", b'{"a":' + b"[" * 30_000, 400),
    "cut multipart": ("multipart/form-data; boundary=x", _multipart(*MEMBERS.items())[:-8], 400),
    "empty multipart": ("multipart/form-data; boundary=x", b"--x--\r\n", 400),
    "nameless multipart": ("multipart/form-data; boundary=x", b"--x\r\nA: b\r\n\r\nc\r\n--x--", 400),
    "too large": (FORM, b"a=" + b"b" * KIB_64, 413),
}


@pytest.mark.parametrize("source", ["acme", "open"])
@pytest.mark.parametrize("name", UNREADABLE)
async def test_what_cannot_be_understood_is_refused_and_kept_byte_for_byte(start: Start, name: str, source: str) -> None:
    content_type, body, status = UNREADABLE[name]
    async with start() as site:
        answered, answer = await _answer(site, f"/callbacks/{source}?token={SECRET}&Event=pickup", content_type, body)
        assert answered == status
        assert b"The callback is kept as a dead letter." in answer
        (message,) = site.dead_letters
        (kept,) = orjson.loads(message.body)
        assert message.headers["reason"] == "unreadable_body"
        assert b64decode(kept["body_base64"]) == body[:KIB_64]
        assert (kept["source"], kept["query"], kept["content_type"]) == (source, "Event=pickup", content_type or "")
        assert kept["is_cut"] == (name == "too large")


async def test_a_compressed_body_is_kept_as_it_is(start: Start) -> None:
    body = gzip.compress(b"a=" + b"a" * (64 << 20))[:KIB_64]
    async with start() as site:
        status, _ = await _answer(site, f"/callbacks/acme?token={SECRET}", FORM, body, "Content-Encoding: gzip")
        assert status == 415
        (kept,) = orjson.loads(site.dead_letters[0].body)
        assert (b64decode(kept["body_base64"]), kept["content_encoding"]) == (body, "gzip")


async def test_a_body_with_the_secret_is_kept_without_it(start: Start) -> None:
    spelled = SECRET, SECRET.replace("/", "\\/"), SECRET.replace("/", "%2f")
    body = "<a token='{}' json='{}' url='{}'/>".format(*spelled).encode()
    async with start() as site:
        # The token in it is enough: the callback is that of the source.
        for target in ("/callbacks/acme", f"/callbacks/acme?token={SECRET}"):
            assert (await _answer(site, target, "text/xml", body))[0] == 415
        assert len(site.dead_letters) == 2
        for message in site.dead_letters:
            (kept,) = orjson.loads(message.body)
            assert b64decode(kept["body_base64"]) == b"<a token='***' json='***' url='***'/>"


async def test_a_header_with_the_secret_is_kept_without_it(start: Start) -> None:
    async with start() as site:
        target = f"/callbacks/acme?token={SECRET}"
        assert (await _answer(site, target, f"text/xml; a={SECRET}", b"<a/>", f"Content-Encoding: {SECRET}"))[0] == 415
        assert SECRET.encode() not in site.dead_letters[0].body
        assert SECRET not in str(site.dead_letters[0].headers)


async def test_an_accepted_callback_is_kept_without_the_secret_wherever_it_is(start: Start) -> None:
    twice = quote(quote(SECRET, safe=""), safe="")
    async with start() as site:
        query = f"{QUERY}&x=1?token={SECRET}&y={twice}z&w=%68{SECRET[1:]}"
        assert (await _answer(site, f"/callbacks/acme?token={SECRET}", FORM, query.encode()))[0] == 200
        assert orjson.loads(site.accepted[0])["query"] == f"{QUERY}&x=1?token=***&y=***z&w=***"


async def test_a_callback_in_the_query_is_accepted_whatever_the_body_is(start: Start) -> None:
    async with start() as site:
        for content_type, body, _ in UNREADABLE.values():
            assert (await _answer(site, f"/callbacks/acme?token={SECRET}&{QUERY}", content_type, body))[0] == 200
        assert len(site.accepted) == len(UNREADABLE)
        assert site.dead_letters == []


async def test_headers_of_any_bytes_are_kept_in_words(start: Start) -> None:
    async with start() as site, connected_to(site.port) as connection:
        raw = post("/callbacks/open?a=b", "Content-Type: x/y; a=XX", body=b"c")
        await connection.send(raw.replace(b"XX", b"\xff\xfe"))
        assert await connection.status() == 415
        (kept,) = orjson.loads(site.dead_letters[0].body)
        assert kept["content_type"] == "x/y; a=\\udcff\\udcfe"


async def test_a_stranger_s_body_is_kept_nowhere(start: Start) -> None:
    async with start() as site:
        for content_type, body, _ in UNREADABLE.values():
            assert (await _answer(site, "/callbacks/acme", content_type, body))[0] in {400, 401, 413, 415}
        assert (site.accepted, site.dead_letters) == ([], [])


async def test_a_dead_letter_shows_a_body_as_text(start: Start) -> None:
    async with start() as site:
        await _answer(site, "/callbacks/open?a=b", "text/xml", b"<call id='77'/>\xff")
        (shown,) = orjson.loads(readable(site.dead_letters[0].body))
    assert shown["body"] == "<call id='77'/>\\xff"
    assert "body_base64" not in shown


CODECS = st.sampled_from(
    ["idna", "punycode", "undefined", "a\0b", "rot13", "hex", "zip", "cp1252", "utf-16", "utf-7", "", "\xff", "x" * 99]
)
TEXTS = st.one_of(st.sampled_from(["a%ff", "x%81", "%", "\x81", "'", '"', "token"]), st.text("ax%8f1;=*'\"\\ \n", max_size=12))


def _parameter(name: str, number: str, mark: str, codec: str, text: str) -> str:
    prefix = f"{codec}''" if mark else ""
    return f"; {name}{number}{mark}={prefix}{text}"


PARAMETERS = st.builds(
    _parameter,
    st.sampled_from(["name", "filename", "boundary", "charset"]),
    st.sampled_from(["", "", "*0", "*1", "*" + "9" * 400]),
    st.sampled_from(["", "*"]),
    CODECS,
    TEXTS,
)
MANY_PARAMETERS = st.lists(PARAMETERS, max_size=4).map("".join)


def _read_both_ways(content_type: str, body: bytes) -> None:
    with suppress(UnreadableBodyError):
        find_body_secret(content_type, body)
    with suppress(UnreadableBodyError):
        assert to_query(content_type, body).isascii()


@given(st.binary(max_size=300), st.sampled_from(["application/json", FORM, "multipart/form-data; boundary=x", "", "x"]))
def test_any_bytes_are_a_query_or_unreadable(body: bytes, content_type: str) -> None:
    _read_both_ways(content_type, body)


@given(
    MANY_PARAMETERS,
    MANY_PARAMETERS,
    st.sampled_from(["application/json", FORM, "multipart/form-data", "multipart/form-data; boundary=x"]),
)
@example("", "; name*=idna''a%ff", "multipart/form-data")
@example("", "; name*=punycode''a%ff", "multipart/form-data")
@example("", "; name*=undefined''a", "multipart/form-data")
@example("", "; name*=a\0b''t", "multipart/form-data")
@example("", "; name*=a; name*1*=b", "multipart/form-data")
@example("; boundary*=idna''x%ff", "; name=a", "multipart/form-data")
@example("; charset*=idna''x%ff", "; name=a", "application/json")
def test_any_parameters_of_headers_are_a_query_or_unreadable(of_type: str, of_part: str, media_type: str) -> None:
    content_type = f"{media_type}{of_type}"
    for body in (f"--x\r\nContent-Disposition: form-data{of_part}\r\n\r\n1\r\n--x--".encode("latin-1"), b'{"a": "\xff"}'):
        _read_both_ways(content_type, body)


@pytest.mark.parametrize("codec", ["idna", "punycode", "undefined", "a\0b", "latin-1", ""])
async def test_a_part_whose_name_has_any_codec_costs_no_callback(start: Start, codec: str) -> None:
    odd = f"--x\r\nContent-Disposition: form-data; name*={codec}''a%ff\r\n\r\n1\r\n".encode("latin-1")
    async with start() as site:
        content_type = "multipart/form-data; boundary*=idna''x"
        assert (await _answer(site, "/callbacks/acme", content_type, odd + _multipart(*PAIRS)))[0] == 200
        assert len(site.accepted) == 1


def test_no_error_keeps_the_bodies_that_were_refused_before() -> None:
    depths = set()
    for _ in range(3):
        with pytest.raises(UnreadableBodyError) as raised:
            to_query("text/xml", b"<a/>")
        depths.add(len(raised.traceback))
    assert len(depths) == 1


async def test_a_fault_in_reading_a_body_costs_no_callback(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> str:
        raise AssertionError("a fault")

    monkeypatch.setattr("ingress.forms.to_query", fails)
    structlog.configure(cache_logger_on_first_use=False)
    body = f"token={SECRET}&{QUERY}".encode()
    with capture_logs() as logs:
        async with start() as site:
            assert (await _answer(site, f"/callbacks/acme?token={SECRET}", FORM, body))[0] == 400
            assert (await _answer(site, "/callbacks/acme", FORM, body))[0] == 400
            assert (await _answer(site, "/callbacks/acme", FORM, QUERY.encode()))[0] == 401
            kept = [orjson.loads(message.body)[0] for message in site.dead_letters]
    assert [b64decode(each["body_base64"]) for each in kept] == [f"token=***&{QUERY}".encode()] * 2
    assert [message.headers["reason"] for message in site.dead_letters] == ["unreadable_body"] * 2
    assert [line["error"] for line in logs if line["event"] == "body_reading_failed"] == ["AssertionError"] * 3


@pytest.mark.parametrize(
    "part",
    [
        b'name="token"\r\n',
        b'"token":"',
        b'"token" ',
        b'{"a":',
        b"--x\r\n",
        b"\r\n",
        b"token=&",
        b'--x\r\nname="token"\r\n\r\n',
        b'"a":1,',
    ],
)
def test_a_body_takes_time_by_its_length(part: bytes) -> None:
    def read(body: bytes) -> None:
        for content_type in ("application/json", "multipart/form-data; boundary=x", FORM):
            _read_both_ways(content_type, body)

    assert_linear(read, lambda size: part * (size // len(part)))
