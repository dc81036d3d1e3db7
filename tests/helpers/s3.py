"""A real S3 server process, and between it and us what a busy S3 answers."""

from __future__ import annotations

import asyncio
import io
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from typing import Any

import aiohttp
from aiohttp import web

from console.local.child_process import kill_with_parent
from console.local.ports import free_port
from tests.helpers.servers import eventually

BUCKET = "evidence"
SECRET_KEY = "secret-of-s3"
SLOW_DOWN = '<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>'

_KEY, _REGION = "key", "eu-north-1"
_DELETED_AT_ONCE = 1000


async def _nothing() -> None:
    return


class Busy:
    """Passes requests on, but for those that meet a bad moment."""

    def __init__(self, port: int, session: aiohttp.ClientSession) -> None:
        self.port = port
        self._session = session
        self._target = f"http://127.0.0.1:{port}"
        self.bad: dict[str, list[int]] = {}  # method -> statuses of the next requests
        self.always: dict[str, int] = {}
        self.met: dict[str, Callable[[], Awaitable[object]]] = {}  # part -> what happens before it is passed on
        self.judge: Callable[[web.Request], int | None] = lambda _: None  # gives the status of a request that meets a fault
        self.damaged = False
        self.is_deaf = False  # to conditions
        self.seen: Counter[str] = Counter()
        self.url = ""
        self._in_hand = 0

    async def idle(self) -> None:
        """Wait until no request is on its way, of those whose sender is gone either."""

        async def is_idle() -> bool:
            return not self._in_hand

        await eventually(is_idle)

    async def handle(self, request: web.Request) -> web.Response:
        self._in_hand += 1
        try:
            return await self._answer(request)
        finally:
            self._in_hand -= 1

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.seen[request.method] += 1
        self.seen["sha256"] += "x-amz-checksum-sha256" in request.headers
        waiting = self.bad.get(request.method, [])
        part = request.query.get("partNumber")
        await self.met.get(f"part {part}", _nothing)()
        if request.method == "DELETE" or "delete" in request.query:  # an abort; or files by their names
            await self.met.get("removal", _nothing)()
        if request.method == "POST" and "uploadId" in request.query and "/.incomplete/" not in request.path:
            await self.met.get("naming", _nothing)()
        if part == "1" and self.damaged:
            body = b"!" + body[1:]
        status = (
            waiting.pop(0)
            if waiting
            else self.always.get(request.method) or self.always.get(f"part {part}") or self.judge(request)
        )
        if status is not None:
            return web.Response(status=status, text=SLOW_DOWN, content_type="application/xml")
        headers = {name: value for name, value in request.headers.items() if name.lower() != "transfer-encoding"}
        if self.is_deaf:
            headers.pop("If-None-Match", None)
        async with self._session.request(
            request.method, self._target + request.raw_path, headers=headers, data=io.BytesIO(body)
        ) as answer:
            passed = {k: v for k, v in answer.headers.items() if k.lower() not in {"content-length", "transfer-encoding"}}
            if request.method == "HEAD":
                passed["Content-Length"] = answer.headers["Content-Length"]
            return web.Response(status=answer.status, body=await answer.read(), headers=passed)


@asynccontextmanager
async def s3_server() -> AsyncIterator[int]:
    """Start the server, with an empty memory; gives its port."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *kill_with_parent(), sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port),
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip

    async def answers() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            return False
        writer.close()
        return True

    await eventually(answers)
    yield port
    process.terminate()
    await process.wait()


@asynccontextmanager
async def busy_s3(port: int) -> AsyncIterator[Busy]:
    """Stand before a server whose bucket is emptied first."""
    async with aiohttp.ClientSession(auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()) as session:
        busy = Busy(port, session)
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{path:.*}", busy.handle)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        busy.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        await asyncio.to_thread(_make_empty_bucket, port)
        yield busy
        await runner.cleanup()


def environment(url: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": _KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_REGION": _REGION,
        "AWS_ALLOW_HTTP": "true",
    }


async def there(port: int) -> tuple[list[str], list[Any]]:
    """List the objects, and the uploads that were begun and neither completed nor aborted."""
    return await asyncio.to_thread(_list, port)


async def contents(port: int) -> dict[str, bytes]:
    """Read every object, past what is busy."""
    return await asyncio.to_thread(_read, port)


@contextmanager
def _client(port: int) -> Iterator[Any]:
    """Ask the server itself, past what is busy."""
    import boto3  # noqa: PLC0415 - slow to import, and most test processes need none of it

    client = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name=_REGION,
        aws_access_key_id=_KEY,
        aws_secret_access_key=SECRET_KEY,
    )
    with closing(client):
        yield client


def _make_empty_bucket(port: int) -> None:
    with _client(port) as client:
        if not client.list_buckets()["Buckets"]:
            client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": _REGION})
        keys = _keys(client)
        for first in range(0, len(keys), _DELETED_AT_ONCE):
            objects = [{"Key": key} for key in keys[first : first + _DELETED_AT_ONCE]]
            client.delete_objects(Bucket=BUCKET, Delete={"Objects": objects})
        for found in _uploads(client):
            client.abort_multipart_upload(Bucket=BUCKET, Key=found["Key"], UploadId=found["UploadId"])


def _list(port: int) -> tuple[list[str], list[Any]]:
    with _client(port) as client:
        return _keys(client), _uploads(client)


def _read(port: int) -> dict[str, bytes]:
    with _client(port) as client:
        return {key: client.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in _keys(client)}


def _keys(client: Any) -> list[str]:  # noqa: ANN401 - boto3 has no types
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    return sorted(found["Key"] for page in pages for found in page.get("Contents", []))


def _uploads(client: Any) -> list[Any]:  # noqa: ANN401 - boto3 has no types
    uploads: list[Any] = client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
    return uploads
