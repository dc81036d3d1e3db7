"""The answer to a dial: its RequestID is found however it is written, and nothing else is taken for one."""

from __future__ import annotations

import gzip
import json
import time
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.dialing.dial_answer import read_answer
from console.dialing.focalscope import DialError, DialState, parse_answer

_BOM = b"\xef\xbb\xbf"


def _id(body: bytes, *, status: int = 200, charset: str | None = None) -> int:
    return parse_answer(status, read_answer(body, charset))


def _problem(body: bytes, status: int = 200) -> DialError:
    with pytest.raises(DialError) as raised:
        _id(body, status=status)
    return raised.value


@pytest.mark.parametrize(
    "body",
    [
        b"{RequestID:513}",
        b'{"RequestID":513}',
        _BOM * 2 + b'{"RequestID":513}',
        b"\n" + _BOM + b" " + _BOM + b"{RequestID:513}",
        b'{"RequestID":513,"Status":"OK"}',
        b'{"Status":"RequestID: 7","RequestID":513}',
        b"{Note: it's ok, RequestID:513}",
        b'{"Error":"","RequestID":513}',
        b'{"Details":{"RequestID":7},"RequestID":513}',
        b"{requestid:513}",
        b'{"requestId": 513}',
        b'{"REQUESTID":513}',
        b'{"request_id":513}',
        b'{"Request ID":513}',
        b'{"RequestID":" 513 "}',
        b"{'RequestID':'513'}",
        b"{ RequestID = 513 }",
        b"{RequestID:513,}",
        b'{"RequestID":513.0}',
        b'{"RequestID":[513]}',
        b'[{"RequestID":513}]',
        b"{RequestID:513}\r\nOK",
        b"OK {RequestID:513}",
        b"{RequestID:513}{RequestID:513}",
        b'callback({"RequestID":513});',
        b'"{\\"RequestID\\":513}"',
        b"RequestID=513",
        b"RequestID: 513\n",
        b"<RequestID>513</RequestID>",
        b'<?xml version="1.0"?><Answer><requestID> 513 </requestID></Answer>',
        b"<a:RequestID><![CDATA[513]]></a:RequestID>",
        b'<dial status="ok" RequestID="513"/>',
        b"<html><body>{RequestID:513}</body></html>",
        b'<string xmlns="http://tempuri.org/">{&quot;RequestID&quot;:513}</string>',
        gzip.compress(b"{RequestID:513}", mtime=0),
        zlib.compress(b"{RequestID:513}"),
        '{"RequestID":513}'.encode("utf-16"),
        '{"RequestID":513}'.encode("utf-16-le"),
        '{"RequestID":513,"Agent":"Jürgen"}'.encode("latin-1"),
    ],
)
@pytest.mark.parametrize("status", [200, 201, 202])
def test_a_request_id_is_found_however_it_is_written(body: bytes, status: int) -> None:
    assert _id(body, status=status) == 513


@pytest.mark.parametrize("charset", ["utf-8", "latin-1", "utf-16", "none-such", "base64", "x\0y", "", "rot13"])
def test_a_charset_that_is_declared_wrong_does_not_matter(charset: str) -> None:
    assert _id(b"{RequestID:513}", charset=charset) == 513


def test_a_charset_that_differs_from_ascii_is_believed() -> None:
    assert _id('{"RequestID":513}'.encode("cp037"), charset="cp037") == 513


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b'{"RequestID":0,"Error":"agent is not logged in"}', "agent is not logged in"),
        (b'{"error":"invalid RequestID: 513"}', "invalid RequestID: 513"),
        (b"Invalid RequestID: 513 is not known", "Invalid RequestID"),
        (b'{"error":{"message":"quota","requestId":"513"}}', "quota"),
        (b"{RequestID:1}{RequestID:2}", "RequestID 1 and 2"),
        (b'[{"RequestID":513},{"RequestID":514}]', "RequestID 513 and 514"),
        (b"{RequestID:513", "no RequestID"),
        (b'{"RequestID":"513', "no RequestID"),
        (b"{RequestID:-1}", "no RequestID"),
        (b"{RequestID:null}", "no RequestID"),
        (b'{"RequestID":"{{RequestID}}"}', "no RequestID"),
        (b"{RequestID:5.13}", "no RequestID"),
        (b"{RequestID:513 514}", "no RequestID"),
        (b"{MyRequestID:513}", "no RequestID"),
        (b"513", "no RequestID"),
        (b"<html><title>Log in</title><script>a = {requestId:513}</script></html>", "HTML page (Log in)"),
        (b"<html>Your RequestID is 513</html>", "HTML page"),
        (b'{"error":"bad link https://pbx/?password=hunter2&x=1"}', "password=***"),
        (b"", "empty"),
        (_BOM * 2 + b" \0", "empty"),
    ],
)
def test_what_is_no_certain_request_id_is_unknown_and_named(body: bytes, named: str) -> None:
    problem = _problem(body)
    assert (problem.state, problem.status) == (DialState.UNKNOWN, 502)
    assert named in problem.title


def test_a_failure_names_what_the_answer_says() -> None:
    assert _problem(b'{"message":"no such agent"}', 404).title == (
        'FocalScope refused the request with status 404: "no such agent". Check dial_url.'
    )
    assert "status 500 and RequestID 513" in _problem(b"{RequestID:513}", 500).title
    assert _problem(b"{RequestID:513}", 500).state is DialState.UNKNOWN


_SPACE = st.sampled_from(["", " ", "\r\n", "\t ", "\ufeff", "\ufeff\ufeff\n", "\u00a0"])
_QUOTE = st.sampled_from(["", '"', "'"])
_NAME = st.sampled_from(["RequestID", "requestid", "requestId", "REQUESTID", "RequestId", "request_id"])
_FIELD = st.tuples(st.sampled_from(["Status", "Error", "queue", "RequestIDs"]), st.one_of(st.integers(0, 9), st.text(max_size=8)))


@given(
    st.integers(1, 10**18 - 1),
    _NAME,
    _QUOTE,
    _QUOTE,
    _SPACE,
    _SPACE,
    _SPACE,
    st.lists(_FIELD, max_size=3),
    st.integers(0, 3),
    st.booleans(),
)
def test_any_spelling_gives_the_same_request_id(  # noqa: PLR0917
    number: int,
    name: str,
    quote: str,
    value_quote: str,
    before: str,
    between: str,
    after: str,
    fields: list[tuple[str, object]],
    place: int,
    is_listed: bool,  # noqa: FBT001
) -> None:
    members = [f'"{field}":{json.dumps(value)}' for field, value in fields]
    members.insert(place, f"{quote}{name}{quote}{between}:{between}{value_quote}{number}{value_quote}")
    text = f"{{{after}{f'{between},{after}'.join(members)}{before}}}"
    text = f"{before}[{text}]{after}" if is_listed else f"{before}{text}{after}"
    for body in (text.encode(), text.encode("utf-16"), gzip.compress(text.encode(), 1)):
        assert _id(body) == number


@given(st.binary(max_size=60), st.sampled_from([200, 201, 202, 204, 302, 404, 500]))
def test_no_answer_fails_in_another_way_than_with_a_named_problem(body: bytes, status: int) -> None:
    try:
        _id(body, status=status)
    except DialError as error:
        title, state = error.title, error.state
    else:
        return
    assert title.endswith(".")
    assert (state is DialState.REFUSED) == (status == 404)


@pytest.mark.parametrize(
    "piece", ['"', '\\"', "'", "{", "<", "<title", "<RequestID> ", "<a RequestID ", "RequestID:", "{RequestID:1,", "= :", "&#"]
)
def test_the_longest_answer_is_read_in_a_moment(piece: str) -> None:
    body = (piece * 65536)[:65536].encode()
    began = time.process_time()
    read_answer(body)
    read_answer(b'"' + body)
    assert time.process_time() - began < 2
