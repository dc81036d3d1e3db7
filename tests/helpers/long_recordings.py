"""Recordings that would show in a worker's memory, and how much of it a worker took."""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.helpers.recordings import Pbx

_PIECE = bytes(range(256)) * 4096  # 1 MiB
_RATE = 16000


class Long:
    """Serves a recording of `size` bytes as CallID 7, made while it is sent."""

    def __init__(self, pbx: Pbx, size: int, *, is_packed: bool = False) -> None:
        self._size = size
        self._is_packed = is_packed
        self._digest = hashlib.sha256()
        self.seconds = (size - 44) / _RATE
        pbx.serve["7"] = self._serve

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def _pieces(self) -> Iterator[bytes]:
        format_ = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, _RATE // 2, _RATE, 2, 16)
        head = struct.pack("<4sI4s", b"RIFF", self._size - 8, b"WAVE") + format_
        head += struct.pack("<4sI", b"data", self._size - 44)
        left, piece = self._size, head + _PIECE[len(head) :]
        while left:
            self._digest.update(piece)
            yield piece
            left -= len(piece)
            piece = _PIECE[:left]

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self._digest = hashlib.sha256()
        response = web.StreamResponse()
        packer = zlib.compressobj(1, wbits=31)
        if self._is_packed:
            response.headers["Content-Encoding"] = "gzip"
        else:
            response.content_length = self._size
        await response.prepare(request)
        for piece in self._pieces():
            await response.write(packer.compress(piece) if self._is_packed else piece)
        if self._is_packed:
            await response.write(packer.flush())
        return response


@contextmanager
def growth_bytes(fleet: Any) -> Iterator[list[int]]:  # noqa: ANN401 - as `worker` yields it
    """Tell by how much the peak of a worker's memory has grown in the body."""
    pid = fleet.processes[0].pid
    before = _peak_bytes(pid)
    growth: list[int] = []
    yield growth
    growth.append(_peak_bytes(pid) - before)


def _peak_bytes(pid: int) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024
