"""No credential reaches a log or a person, in whatever form it stands; what opens nothing stays as it is."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable
from string import printable
from urllib.parse import quote

import orjson
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from shared.domain.adapter_link import PARAMETER_NAMES, Placeholder, make_link
from shared.log import configure, get_logger
from shared.masking import mask_credentials, mask_value

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


@pytest.mark.parametrize(
    "text",
    [
        "GET /callbacks/acme?a=1&token=hunter2&b=2",
        "https://pbx/x?uid=1&sectok=hunter2&nId=3",
        "a=1&RecordingURL=https%3A%2F%2Fpbx%2F%3Fsectok%3Dhunter2%26nId%3D3&b=2",
        "token=hunter2",
        "token = hunter2",
        "{token=hunter2}<sectok=hunter2>|pwd=hunter2",
        'token="hunter2" b=2',
        "https://pbx/x?a=1&sid=hunter2&password=hunter2&nId=3",
        "https://pbx/x;jsessionid=hunter2",
        "https://pbx/x#access_token=hunter2&b=2",
        "SECTOK=hunter2 PassWD=hunter2 pwd=hunter2 X-Amz-Signature=hunter2",
        "?apiKey=hunter2&api_key=hunter2&api-key=hunter2&key=hunter2&auth=hunter2&user[password]=hunter2&b=2",
        "?session=hunter2&client_secret=hunter2&signature=hunter2&sessionId=hunter2&authToken=hunter2",
        "?s%65ctok=hunter2&%70%77%64=hunter2&b=2",
        "%73ectok=hunter2&b=2",
        "?a=1&%2573%2565ctok=hunter2&b=2",
        "u=https%3A%2F%2Fpbx%2F%3Fsid%3Dhunter2%26nId%3D3&b=2",
        "v=u%3Dhttps%253A%252F%252Fpbx%252F%253Fsid%253Dhunter2%2526x%253D1",
        "https://joe:hunter2@pbx/x?nId=3",
        "https://hunter2@pbx/?b=2",
        "https://joe:hunter2@hunter2@pbx/?b=2",
        "//joe:hunter2@pbx/?b=2",
        r'{"url":"https:\/\/joe:hunter2@pbx\/?b=2"}',
        "redis://:hunter2@127.0.0.1:6379/0",
        "u=https%3A%2F%2Fjoe%3Ahunter2%40pbx%2Frec%3FnId%3D3",
        '{"body": "GET /?sectok=hunter2\\"}',
        '{"sectok":"hunter2","b=2":1}',
        '{"sectok" : "hunter2", "nId=3": null}',
        '{"sectok":"hun\\"hunter2","b=2":1}',
        "{'sectok': 'hunter2', 'b=2': 1}",
        '{"event": "{\\"sectok\\": \\"hunter2\\", \\"b=2\\": 1}"}',
        '{"password":["hunter2","hunter2"],"b=2":1}',
        "%7B%22sectok%22%3A%22hunter2%22%7D&b=2",
        "Authorization: Bearer hunter2",
        "authorization: Basic hunter2==",
        "Proxy-Authorization:hunter2",
        'Authorization: Digest username="joe", response="hunter2", uri="/hunter2"',
        '{"line": "Authorization: Bearer hunter2\\r\\nb=2: 1"}',
        '{"Authorization": "Bearer hunter2", "b=2": 1}',
        "<CIMultiDictProxy('Authorization': 'Bearer hunter2', 'b=2': '1')>",
        "((b'Authorization', b'Bearer hunter2'), (b'b=2', b'1'))",
        "sent Bearer hunter2, b=2",
        "sectok: hunter2",
        "X-Auth-Token: Bearer hunter2",
        "x-api-key:hunter2",
        "Cookie: sid=hunter2; PHPSESSID=hunter2; theme=hunter2",
        "Set-Cookie: a=hunter2; Path=/; HttpOnly\nb=2",
        "{'Cookie': 'a=hunter2; c=hunter2', 'b=2': 1}",
        "?cookie=hunter2&b=2",
    ],
)
def test_credentials_are_masked_wherever_they_stand(text: str) -> None:
    masked = mask_credentials(text)
    assert "hunter2" not in masked
    assert "***" in masked
    for kept in ("b=2", "nId=3", "nId%3D3"):
        assert (kept in text) == (kept in masked)
    assert mask_credentials(masked) == masked


@pytest.mark.parametrize(
    "told", [{"sectok": 'a"b'}, {"a": {"token": "x", "b": [1]}}, {"password": 12, "b": None}, {"secret": None, "token": True}]
)
def test_json_stays_json(told: object) -> None:
    for text in (json.dumps(told), orjson.dumps(told).decode(), json.dumps({"event": json.dumps(told)})):
        masked = json.loads(mask_credentials(text))
        assert masked.keys() == json.loads(text).keys()


@pytest.mark.parametrize(
    "text",
    [
        make_link("https://hooks.example.com", "acme", None),
        "&".join(f"{PARAMETER_NAMES.get(name, name)}=5" for name in Placeholder),
        "a=1&RecordingURL=https%3A%2F%2Fpbx%2Frec%3FnId%3D3%26user%3Djoe%40example.com&CallerID=%2B15551234",
        "https://pbx/rec?user=joe@example.com&Monkey=7&hockey=1&tokens=3&passenger=4",
        "mailto:joe@example.com, see https://pbx/a@b",
        "sid and token are names; 7 = 8",
        '{"key": "acme/513", "pass": 1, "tokens": 3, "secret": null}',
        "a web page instead of a recording. The token may be wrong or expired",
        "the keys, sessions and cookies of 10:30",
        "x" * 100_000 + "%41" * 10_000 + "?" * 10_000,
        "=monkey" * 10 + "=",
    ],
)
def test_what_opens_nothing_is_not_masked(text: str) -> None:
    assert mask_credentials(text) == text


def _encoded(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode())


def _quoted(text: str) -> str:
    return quote(text, safe="")


# A secret of any characters, where the form it stands in allows for any.
PLACES: tuple[Callable[[str, str], str], ...] = (
    lambda name, secret: f"{name}={_quoted(secret)}",
    lambda name, secret: f"https://pbx/rec?a=1&{name}={_quoted(secret)}&b=2",
    lambda name, secret: f"{_encoded(name)}={_quoted(secret)}",
    lambda name, secret: f"a=1&{_quoted(_encoded(name))}={_encoded(secret)}",
    lambda name, secret: f"a=1&u={_quoted(f'https://pbx/?{name}={_quoted(secret)}&b=2')}",
    lambda name, secret: "v=" + _quoted("u=" + _quoted(f"https://pbx/?{name}={_quoted(secret)}")),
    lambda name, secret: json.dumps({"a": 1, name: secret, "b": 2}),
    lambda name, secret: json.dumps({name: [secret, secret]}),
    lambda name, secret: orjson.dumps([{name: secret}]).decode(),
    lambda name, secret: repr({"a": 1, name: secret}),
    lambda name, secret: repr(((name.encode(), secret.encode()), (b"a", b"b"))),
    lambda name, secret: _quoted(json.dumps({name: _quoted(secret)})),
    lambda _, secret: f"https://joe:{_quoted(secret)}@pbx/rec",
    lambda _, secret: f"u={_quoted(f'https://joe:{_quoted(secret)}@pbx/rec')}",
    lambda _, secret: json.dumps({"Cookie": f"a=b; c={_quoted(secret)}; d=e"}),
)
# One of the characters that a token, a header or a cookie is written in.
BARE_PLACES: tuple[Callable[[str, str], str], ...] = (
    lambda name, secret: f"{name}={secret}",
    lambda name, secret: f"{name}: {secret}",
    lambda name, secret: f"{name}:{secret}\r\nHost: pbx",
    lambda _, secret: f"Authorization: Bearer {secret}",
    lambda _, secret: f"the header Bearer {secret} was sent",
    lambda _, secret: f"Authorization: Basic {secret}\r\nHost: pbx",
    lambda name, secret: f"Cookie: a=b; {name}={secret}; c=d",
    lambda _, secret: f"Set-Cookie: a={secret}; Path=/",
)
WRAPPINGS: tuple[Callable[[str], str], ...] = (
    lambda text: json.dumps({"event": text, "level": "info"}),
    lambda text: json.dumps({"detail": json.dumps({"body": text})}),
    lambda text: f"<{text}>",
    lambda text: f"Traceback:\n  ClientError({text!r})\n",
)
runs = st.text(LETTERS, min_size=12, max_size=40)
names = st.sampled_from(
    ["sectok", "token", "access_token", "password", "X-Api-Key", "client-secret", "jsessionid", "SID", "auth"]
)
wraps = st.lists(st.sampled_from(WRAPPINGS), max_size=2)
Secret = tuple[str, str, str]


def _assert_hidden(secret: Secret, put: Callable[[str], str]) -> None:
    """Look for both ends of a secret where it was put; one that stands there without it as well is none."""
    text, around = put("".join(secret)), put("")
    masked = mask_credentials(text)
    assert all(end in around or end not in masked for end in (secret[0], secret[2])), text


def _wrapped(text: str, wrappings: list[Callable[[str], str]]) -> str:
    for wrap in wrappings:
        text = wrap(text)
    return text


@settings(max_examples=200)
@given(names, st.sampled_from(PLACES), wraps, st.tuples(runs, st.text(printable, max_size=4), runs))
def test_no_secret_survives_in_any_place(
    name: str, place: Callable[[str, str], str], wrappings: list[Callable[[str], str]], secret: Secret
) -> None:
    _assert_hidden(secret, lambda put: _wrapped(place(name, put), wrappings))


@settings(max_examples=200)
@given(names, st.sampled_from(BARE_PLACES), wraps, st.tuples(runs, st.text("-._~+/=", max_size=4), runs))
def test_no_bare_secret_survives_in_any_place(
    name: str, place: Callable[[str, str], str], wrappings: list[Callable[[str], str]], secret: Secret
) -> None:
    _assert_hidden(secret, lambda put: _wrapped(place(name, put), wrappings))


@given(secret=runs, before=st.text(max_size=20), after=st.text(max_size=20))
def test_no_secret_survives_among_any_text(secret: str, before: str, after: str) -> None:
    assume(secret not in before + after)
    assert secret not in mask_credentials(f"{before} https://pbx/rec?sectok={secret}&nId=3 {after}")


@given(text=st.text(st.sampled_from("=:,%&?\"'\\{}[]@/ \r\n253DA2Fsidtokenb"), max_size=60))
def test_masking_ends_and_a_second_time_changes_nothing_that_is_masked(text: str) -> None:
    masked = mask_credentials(text)
    assert mask_credentials(masked).count("***") >= masked.count("***") - text.count("***")


def test_a_named_value_is_masked_whole() -> None:
    assert mask_value("user[password]", "two words") == "***"
    assert mask_value("metadata", '{"token": "x"}') == '{"token": "***"}'
    assert mask_value("token", "") == ""


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_nothing_is_logged_in_any_form(log_format: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure("json" if log_format == "json" else "console", "info", process="tests")
    handler = logging.getLogger().handlers[0]
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(told := io.StringIO())
    headers = {"Authorization": "Bearer hunter2", "Cookie": "sid=hunter2"}
    get_logger("tests").info("asked", token="hunter2 hunter2", headers=headers, link="https://joe:hunter2@pbx/")
    logging.getLogger("library").warning("headers %s", headers)
    assert "hunter2" not in told.getvalue()
    assert told.getvalue().count("***") >= 5
