"""A form is read as UTF-8 alone: anybody may post one to the log-in, before the console knows who it is."""

from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from console.web.parameters import read_form

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
