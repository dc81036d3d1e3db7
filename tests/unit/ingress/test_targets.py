"""A callback is not lost to how its link was spelled on its way: slashes, letter case, escapes, and what begins the query."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, quote

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingress.targets import is_odd, read_target, tidied
from shared.domain.adapter_link import make_link, parse_link
from shared.domain.callback import parse_callback
from tests.helpers.raw_http import connected_to, get, post
from tests.helpers.site import Start, site_of

SECRET = "hunter2-hunter2"
LINE = "CallType=API&Event=pickup&CallID=77&RequestID=513&ResponderAgent=A%26B"
QUERY = f"token={SECRET}&{LINE}"
SPELLED = [
    f"/callbacks/acme/?{QUERY}",
    f"/callbacks/acme//?{QUERY}",
    f"//callbacks/acme?{QUERY}",
    f"///callbacks//acme?{QUERY}",
    f"/./callbacks/./acme?{QUERY}",
    f"/Callbacks/acme?{QUERY}",
    f"/CALLBACKS/ACME/?{QUERY}",
    f"/callbacks/Acme?{QUERY}",
    f"/callbacks/acme%20?{QUERY}",
    f"/callbacks/%20acme?{QUERY}",
    f"/callbacks%2Facme?{QUERY}",
    f"/callbacks\\acme?{QUERY}",
    f"/c%61llbacks/%41cme?{QUERY}",
    f"/callbacks/acme&{QUERY}",
    f"/callbacks/acme/&{QUERY}",
    f"/callbacks/acme/{QUERY}",
    f"/callbacks/acme&amp;{QUERY}",
    f"/callbacks/acme%3F{QUERY}",
    f"/callbacks/acme%3f{QUERY}",
    f"/callbacks/acme/%3F{QUERY}",
    f"/callbacks/acme%26{QUERY}",
    f"/callbacks/acme%3F{quote(QUERY, safe='')}",
    f"/callbacks/acme?{quote(QUERY, safe='')}",
    f"/callbacks/acme??{QUERY}",
    f"/callbacks/acme?&{QUERY}",
    f"/callbacks/acme?{QUERY.replace('&', '&amp;')}",
    f"/callbacks/acme?{QUERY.replace('&', '&amp;amp;')}",
    f"/callbacks/acme?{QUERY.replace('&', '&#38;')}",
    f"/callbacks/acme?token={SECRET}?{LINE}",
    f"/callbacks/acme?token={SECRET};{LINE}",
    f"/callbacks/acme?token={SECRET};CallType=API;{LINE.removeprefix('CallType=API&')}",
    f"/callbacks/acme?{LINE}&token={SECRET}#",
    f"/callbacks/acme?{LINE}&token={SECRET}#top",
    f"/callbacks/acme?{LINE}&token={SECRET}%0D%0A",
    f"/callbacks/acme?{LINE}&token=%22{SECRET}%22",
    f"/callbacks/acme?{LINE};token={SECRET}",
    f"http://hooks.example.com//callbacks/acme/?{QUERY}",
    f"HTTPS://hooks.example.com/Callbacks/acme&{QUERY}",
]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    return site_of(tmp_path, f'[sources.acme]\nsecret = "{SECRET}"\n')


@pytest.mark.parametrize("target", SPELLED)
async def test_a_callback_is_accepted_however_its_link_is_spelled(start: Start, target: str) -> None:
    async with start() as site, connected_to(site.port) as connection:
        await connection.send(get(target) + post(target))
        assert [await connection.status(), await connection.status()] == [200, 200]
        assert [orjson.loads(event)["query"] for event in site.accepted] == [LINE] * 2
        assert {orjson.loads(event)["source"] for event in site.accepted} == {"acme"}


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (f"/callbacks/acme/more?{QUERY}", 404),
        (f"/callbacks/?{QUERY}", 404),
        (f"/hooks/callbacks/acme?{QUERY}", 404),
        (f"/callbacks/acme/../acme?{QUERY}", 404),
        (f"/callbacks/acme?token=wrong?{LINE}", 401),
        (f"/callbacks/acme?{LINE}?token=wrong", 401),
        # A `?` in the value of a parameter with a meaning belongs to that value.
        (f"/callbacks/acme?token={SECRET}&CallType=API&Event=pickup&RecordingURL=https://pbx/dl?CallID=77", 400),
    ],
)
async def test_what_is_no_spelling_of_a_link_is_refused(start: Start, target: str, status: int) -> None:
    async with start() as site, connected_to(site.port) as connection:
        await connection.send(get(target))
        assert await connection.status() == status
        assert site.accepted == []


@pytest.mark.parametrize("secret", ["hunter2;hunter2", "hunter2#hunter2", "hunter2;a=b&c", " hunter2?a=hunter2 "])
async def test_a_secret_with_the_characters_of_a_link_is_read_as_it_is(tmp_path: Path, secret: str) -> None:
    start = site_of(tmp_path, f'[sources.acme]\nsecret = "{secret}"\n')
    sent = secret.replace("&", "%26").replace(" ", "+")
    async with start() as site, connected_to(site.port) as connection:
        await connection.send(
            get(f"/callbacks/acme?token={sent}&{LINE}") + post(f"/callbacks/acme?token={sent}", body=LINE.encode())
        )
        assert [await connection.status(), await connection.status()] == [200, 200]


@pytest.mark.parametrize("end", ["#", "#top", ">", '"', "/", ";", "?", "?x=1", "%0D%0A"])
async def test_what_ends_a_link_splits_no_call(start: Start, end: str) -> None:
    adapter = parse_link(make_link("https://h", "acme", None))
    line = f"CallType=API&Event=pickup&CallID=77&RequestID=513{end}"
    async with start() as site, connected_to(site.port) as connection:
        await connection.send(get(f"/callbacks/acme?token={SECRET}&{line}"))
        assert await connection.status() == 200
        for event in site.accepted:
            assert parse_callback(adapter, orjson.loads(event)["query"]).request_id == 513


async def test_a_second_query_behind_an_id_may_have_the_token(start: Start) -> None:
    line = "CallType=API&Event=pickup&CallID=77&RequestID=513"
    async with start() as site, connected_to(site.port) as connection:
        await connection.send(get(f"/callbacks/acme?{line}?token={SECRET}"))
        assert await connection.status() == 200
        assert orjson.loads(site.accepted[0])["query"] == line


async def test_all_parameters_may_be_separated_by_semicolons(start: Start) -> None:
    async with start() as site, connected_to(site.port) as connection:
        for query in (f"token={SECRET}&{LINE}", f"{LINE}&token={SECRET}"):
            await connection.send(get(f"/callbacks/acme?{query.replace('&', ';')}"))
            assert await connection.status() == 200
        assert [parse_qs(orjson.loads(event)["query"], separator="&")["CallID"] for event in site.accepted] == [["77"]] * 2


async def test_a_source_without_a_secret_takes_a_second_query_too(tmp_path: Path) -> None:
    async with site_of(tmp_path, "[sources.acme]\n")() as site, connected_to(site.port) as connection:
        await connection.send(get(f"/callbacks/acme?from=pbx?{LINE}"))
        assert await connection.status() == 200
        assert orjson.loads(site.accepted[0])["query"] == f"from=pbx&{LINE}"


PLAIN = st.text("abc&=%20+?/;-~", min_size=1).filter(lambda query: "=" in query and query[0] not in "?&")


@given(PLAIN)
def test_a_query_that_is_not_odd_stays_as_it_is(query: str) -> None:
    assert read_target(f"/callbacks/acme?{query}") == ("acme", query)
    if not is_odd(query):
        assert tidied(query) == query
