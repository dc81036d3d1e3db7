"""The Job that imports the policies of RabbitMQ sends them as the user of the operator, and says why it fails."""

from __future__ import annotations

import asyncio
import base64
import subprocess
import sys
from pathlib import Path

import pytest
from aiohttp import web

from deploy.helm.manifests import CHART
from tests.helpers.pace import LIMIT_S

_FILES = CHART / "files"


async def _run(directory: Path, port: int) -> tuple[int, str]:
    for name, text in {"host": "127.0.0.1", "username": "default_user", "password": "word of the operator"}.items():
        (directory / name).write_text(text + "\n", "utf-8")
    script, definitions = _FILES / "import_policies.py", _FILES / "definitions.json"
    options = ("--user", str(directory), "--definitions", str(definitions), "--port", str(port))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", script, *options, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    async with asyncio.timeout(LIMIT_S):
        output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


@pytest.mark.parametrize(
    ("status", "code", "answer"), [(204, 0, "Imported the policies"), (401, 1, "refused the policies: status 401")]
)
async def test_it_sends_the_policies_and_says_how_it_went(tmp_path: Path, status: int, code: int, answer: str) -> None:
    received: list[tuple[str, str, bytes]] = []

    async def take(request: web.Request) -> web.Response:
        received.append((request.path, request.headers["Authorization"], await request.read()))
        return web.Response(status=status)

    app = web.Application()
    app.router.add_post("/{path:.*}", take)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        exit_code, output = await _run(tmp_path, runner.addresses[0][1])
    finally:
        await runner.cleanup()
    login = base64.b64encode(b"default_user:word of the operator").decode()
    assert received == [("/api/definitions", f"Basic {login}", (_FILES / "definitions.json").read_bytes())]
    assert (exit_code, answer in output) == (code, True)
    assert "word of the operator" not in output
