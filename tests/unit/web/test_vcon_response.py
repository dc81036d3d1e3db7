"""A console with a signing key: the ETag of a vCon is that of its content, whatever the signature."""

from __future__ import annotations

from typing import cast

import orjson
import pytest
from aiohttp.test_utils import make_mocked_request

from console.lookup.lookup import Lookup
from console.lookup.published import NotPublishedError
from console.vcon.published_call import PublishedCall, Publisher
from console.vcon.signing import Signer
from console.web.vcon_response import VconResponses
from shared.domain.ids import CallKey, CallRef
from tests.helpers.folding import SOURCE, at
from tests.helpers.records import SECOND_NUMBER, record

KEY = CallKey(SOURCE, CallRef("513"))


class _Lookup:
    async def published(self, key: CallKey, revision: int | None) -> PublishedCall:
        if revision == 9:
            raise NotPublishedError("no such revision")
        return PublishedCall.of(key, {"time": at(60), "data": record(*SECOND_NUMBER)}, None, [])


class _Signer:
    """Signs with the number of the signature, so that each differs."""

    count = 0

    def sign(self, vcon: dict[str, object], _: str) -> bytes:
        self.count += 1
        return orjson.dumps({"payload": vcon["uuid"], "signatures": [self.count]})


@pytest.mark.parametrize("is_signed", [False, True])
async def test_a_vcon_that_the_client_has_is_not_sent_and_not_signed_again(is_signed: bool) -> None:  # noqa: FBT001
    signer = cast("Signer", _Signer()) if is_signed else None
    responses = VconResponses(cast("Lookup", _Lookup()), Publisher(), signer)

    async def respond(revision: int | None = None, known: str = "") -> tuple[int, bytes, str]:
        request = make_mocked_request("GET", "/calls/acme/513", headers={"If-None-Match": known})
        response = await responses.respond(request, KEY, "application/vcon", revision)
        assert response.headers["Vary"] == "Accept"
        return response.status, cast("bytes", response.body), response.headers.get("ETag", "")

    status, first, etag = await respond()
    assert (status, etag.startswith("W/"), "signatures" in orjson.loads(first)) == (200, is_signed, is_signed)
    _, second, same = await respond()
    assert (same, second == first) == (etag, not is_signed)
    assert (await respond(known=etag))[::2] == (304, etag)
    assert (await respond(known='"other"'))[0] == 200
    assert (await respond(9))[0] == 404
