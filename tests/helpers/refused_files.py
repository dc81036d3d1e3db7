"""Refused files in an archive."""

from __future__ import annotations

import io
from hashlib import sha256
from typing import Any

from shared.archive.refused import RefusedFile, delete_refused, directory_of, keep_refused, refused_files
from shared.archive.storage import Archive

AT = "2026-11-23T07:44:00.000000Z"


def refused_file(call_id: str, content: bytes, **changed: Any) -> RefusedFile:  # noqa: ANN401
    fields: dict[str, Any] = {
        "source": "acme",
        "call": f"call-{call_id}",
        "call_id": call_id,
        "guid": None,
        "name": f"call-{call_id}",
        "leg": "agent",
        "started_at": AT,
        "sidecar": f"{changed.get('source', 'acme')}/monitor/2026-UTC/11/23/call-{call_id}.json",
        "at": AT,
        "reason": "truncated",
        "detail": "8 of 9 bytes",
        "attempts": 3,
        "bytes": len(content),
        "sha256": sha256(content).hexdigest(),
        **dict.fromkeys(("seconds", "channels", "sample_rate", "encryption", "stored_bytes", "stored_sha256")),
        "flags": (),
    }
    return RefusedFile(**fields | changed)


async def keep(archive: Archive, call_id: str, content: bytes, **changed: Any) -> RefusedFile:  # noqa: ANN401
    refused = refused_file(call_id, content, **changed)
    assert await keep_refused(archive, refused, io.BytesIO(content), 1 << 20) == []
    return refused


async def kept(archive: Archive) -> tuple[list[str], list[str]]:
    """Return the CallIDs of the refused files, and the names of all files in their directory."""
    names = [entry.path.removeprefix(f"{directory_of('acme')}/") async for entry in archive.entries(directory_of("acme"))]
    return sorted([refused.call_id async for refused in refused_files(archive, "acme")]), sorted(names)


async def check_limits(archive: Archive) -> None:
    """See that one file is kept of a leg, and that the oldest go beyond a limit."""
    await keep(archive, "7", b"first")
    second = await keep(archive, "7", b"second, longer")
    assert await kept(archive) == (["7"], [second.file.rpartition("/")[2], "call-7.7.json"])
    assert await archive.read(second.file) == b"second, longer"
    other = await keep(archive, "8", b"x", name="bfa2dbc8-ab8a-34c8-f243-c2aad8c446ff", encryption={"scheme": "age"})
    assert other.file.endswith(".wav.age")
    third = refused_file("9", b"z")
    assert len(await keep_refused(archive, third, io.BytesIO(b"z"), 1 << 20, max_files=2)) == 1
    assert len((await kept(archive))[1]) == 4
    large = refused_file("10", b"z" * 10)
    assert len(await keep_refused(archive, large, io.BytesIO(b"z" * 10), 9)) == 2
    assert (await kept(archive))[0] == ["10"], "the newest stays"
    await delete_refused(archive, large)
    assert await kept(archive) == ([], [])
