"""A form is read as UTF-8 alone: anybody may post one to the log-in, before the console knows who it is."""

from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer, make_mocked_request

from console.web.parameters import read_form
from console.web.problems import reject_unless_json

URL_ENCODED = "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        (URL_ENCODED, b"key=%C3%A6", 200),
        (f"{URL_ENCODED}; charset=UTF-8", b"key=%C3%A6", 200),
        (URL_ENCODED, b"key=\xff", 400),
        (f"{URL_ENCODED}; charset=punycode", b"key=-" + b"a" * 60_000, 400),
        (f"{URL_ENCODED}; charset=unicode_escape", b"key=\\ud800", 400),
        (f"{URL_ENCODED}; charset=nonsense", b"key=a", 400),
        (f"{URL_ENCODED}; charset*=idna''x%ff", b"key=a", 400),
        (f"{URL_ENCODED}; charset*=punycode''x%ff", b"key=a", 400),
        (f"{URL_ENCODED}; name*=undefined''x", b"key=a", 400),
        ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="key"\r\n\r\na\r\n--b--\r\n', 400),
    ],
)
async def test_a_form_is_url_encoded_utf_8_or_refused(content_type: str, body: bytes, status: int) -> None:
    async def read(request: web.Request) -> web.Response:
        (await read_form(request))["key"]
        return web.Response()

    app = web.Application()
    app.router.add_post("/login", read)
    async with (
        TestClient(TestServer(app)) as client,
        client.post("/login", data=body, headers={"Content-Type": content_type}) as response,
    ):
        assert response.status == status


@pytest.mark.parametrize(
    ("content_type", "is_json"),
    [
        ("application/json", True),
        ("Application/JSON ; charset*=idna''x%ff", True),
        ("text/xml; a*=idna''x%ff", False),
        (None, False),
    ],
)
def test_no_parameter_of_a_type_is_an_error_of_the_console(content_type: str | None, is_json: bool) -> None:  # noqa: FBT001
    headers = {} if content_type is None else {"Content-Type": content_type}
    assert (reject_unless_json(make_mocked_request("POST", "/dial", headers=headers)) is None) == is_json
