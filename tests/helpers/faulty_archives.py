"""Where recordings are archived in a storm of faults: on a disk, or in an object store; each with faults of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from aiohttp import web

from shared.archive.local_disk import INCOMPLETE, PROBE
from tests.helpers import full_disk
from tests.helpers.recording_faults import ERROR_ONCE, ERRORS, SLOW_DOWN_ONCE, SLOW_DOWNS, Place, Trouble
from tests.helpers.s3 import BUCKET, Busy, contents, there
from tests.helpers.servers import eventually_nothing

_PREFIX = "calls/"
_ONCE = {ERROR_ONCE: 500, SLOW_DOWN_ONCE: 503}
_ALWAYS = {ERRORS: 500, SLOW_DOWNS: 503}


class Disk:
    """An archive on disk: full for a while; and one day of it cannot be written, since a file is where its directory would be."""

    kind = Place.DISK

    def __init__(self, directory: Path) -> None:
        self._root = directory / "archive"
        self._flag = directory / "full"
        self._blocked = self._root / "acme" / "monitor" / "2026-UTC" / "11" / "24"
        self.settings = {full_disk.VARIABLE: str(self._flag)}

    @contextmanager
    def full(self) -> Iterator[None]:
        self._flag.touch()
        yield
        self._flag.unlink()

    def trouble(self, _: dict[str, Trouble]) -> None:
        self._blocked.parent.mkdir(parents=True)
        self._blocked.touch()

    def repair(self) -> None:
        self._blocked.unlink()

    async def files(self) -> dict[str, bytes]:
        """Read all that is there once nothing is being written; what killed workers left is included."""

        async def drafts() -> list[Path]:
            return [*self._root.rglob("*.callfold-tmp"), *self._root.glob(f"{PROBE}*")]

        await eventually_nothing(drafts)
        found = [path for path in self._root.rglob("*") if path.is_file() and path != self._blocked]
        return {str(path.relative_to(self._root)): path.read_bytes() for path in found}

    async def note_left(self) -> None:
        """Do nothing: what killed workers leave on a disk, the next ones clear away."""


class Bucket:
    """An object store that has a bad moment, or nothing but, whenever a recording that has such a trouble is stored."""

    kind = Place.S3

    def __init__(self, s3: Busy) -> None:
        self._s3 = s3
        self._troubles: dict[str, Trouble] = {}
        self._met: set[str] = set()
        self._left: set[str] = set()
        self.settings = {"CALLFOLD_ARCHIVE_URL": f"s3://{BUCKET}/{_PREFIX.rstrip('/')}"}

    full = staticmethod(nullcontext)

    def trouble(self, troubles: dict[str, Trouble]) -> None:
        self._troubles = {f"call-{call_id}.wav": trouble for call_id, trouble in troubles.items()}
        self._s3.judge = self._judge

    def _judge(self, request: web.Request) -> int | None:
        name = request.path.rpartition("/")[2]
        trouble = self._troubles.get(name) if request.method == "PUT" else None
        if trouble in _ONCE and name not in self._met:
            self._met.add(name)
            return _ONCE[trouble]
        return _ALWAYS.get(trouble) if trouble else None

    def repair(self) -> None:
        assert self._met, "some met a bad moment"
        self._s3.judge = lambda _: None

    async def note_left(self) -> None:
        """Note the uploads and drafts that killed workers left: the former are the bucket's to clear away, the latter swept in a day."""
        drafts, uploads = await self._under_way()
        self._left |= drafts | uploads.keys()

    async def files(self) -> dict[str, bytes]:
        """Read all that is archived; fails where a draft or an open upload was left by a worker that was not killed."""

        async def others() -> list[str]:  # a check of the archive is a draft for a moment
            drafts, uploads = await self._under_way()
            return [*(drafts - self._left), *(key for upload, key in uploads.items() if upload not in self._left)]

        await eventually_nothing(others)
        found = {key.removeprefix(_PREFIX): content for key, content in (await contents(self._s3.port)).items()}
        return {key: content for key, content in found.items() if not key.startswith(INCOMPLETE)}

    async def _under_way(self) -> tuple[set[str], dict[str, str]]:
        """List the drafts, and the open uploads with the names they are for."""
        await self._s3.idle()
        names, uploads = await there(self._s3.port)
        drafts = {name for name in names if name.startswith(_PREFIX + INCOMPLETE)}
        return drafts, {found["UploadId"]: found["Key"] for found in uploads}
