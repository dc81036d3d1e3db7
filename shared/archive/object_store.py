"""Files in an object store: a file is at its name whole and as it was sent, or not at all (docs/adr/0005-archive-writes.md).

It is uploaded in parts under a name of this try alone, read back, and then copied within the store to its own name, which
the store refuses where there is one.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
import uuid
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, BinaryIO, cast

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import ObjectStore, S3Store, from_url

if TYPE_CHECKING:  # exist for type checkers only
    from obstore import AsyncWritableFile
    from obstore.store import ClientConfig, RetryConfig

from shared.archive.deadlines import ArchiveUnavailableError, archive_deadline, uncut
from shared.archive.local_disk import INCOMPLETE, Last, Moved, TakenError
from shared.log import get_logger

log = get_logger(__name__)

_COPY_BYTES = 1 << 20
_PART_BYTES = 5 << 20
# So that all but the last part has arrived, and can be aborted, before an upload is completed.
_PARTS_AT_A_TIME = 1
# Of no part, sent or read back, and of no copy within the store, is less heard for longer.
_STALL_S = 240.0
# A copy of gigabytes within the store is one request, which may say nothing until it is done.
_COPY_S = 900.0
_DELETE_S = 60
_RETRIES: RetryConfig = {"max_retries": 3, "retry_timeout": timedelta(seconds=60)}
# Whoever asks waits for less; a body that comes slowly may take its time.
_CLIENT: ClientConfig = {"read_timeout": timedelta(seconds=60), "timeout": timedelta(days=1)}
_COPYING: ClientConfig = {"timeout": timedelta(seconds=_COPY_S)}
# Given options of ours, the library asks the environment for none of its own.
_FROM_ENVIRONMENT = {
    "s3": "AWS_",
    "s3a": "AWS_",
    "gs": "GOOGLE_",
    "az": "AZURE_",
    "azure": "AZURE_",
    "abfs": "AZURE_",
    "abfss": "AZURE_",
}
_OPTIONS = (
    "allow_http",
    "allow_invalid_certificates",
    "connect_timeout",
    "proxy_ca_certificate",
    "proxy_excludes",
    "proxy_url",
    "read_timeout",
    "timeout",
    "user_agent",
)
# Longer than any upload takes: what is older was left by a process that was killed.
_LEFT_S = 2 * 86400


class Bucket:
    """Writes files into an object store."""

    def __init__(self, url: str) -> None:
        """Take the URL of the store.

        Raises:
            BaseError, ValueError: it is not understood.
        """
        scheme, client, copying = url.partition("://")[0], _client(url, _CLIENT), _client(url, _COPYING)
        if scheme in {"s3", "s3a"}:
            # The server compares each part with our checksum and refuses what was damaged on the way.
            self.store: ObjectStore = S3Store.from_url(
                url, config={"checksum_algorithm": "SHA256"}, client_options=client, retry_config=_RETRIES
            )
            # A copy has no checksum of ours, which an upload begun with one would have to tell at its end.
            how = {} if "AWS_COPY_IF_NOT_EXISTS" in os.environ else {"copy_if_not_exists": "multipart"}
            self._copying: ObjectStore = S3Store.from_url(url, config=how, client_options=copying, retry_config=_RETRIES)  # type: ignore[arg-type]
        else:
            self.store = from_url(url, config=None, client_options=client, retry_config=_RETRIES)
            self._copying = from_url(url, config=None, client_options=copying, retry_config=_RETRIES)

    async def put(self, path: str, content: BinaryIO, last: Last | None, *, is_new: bool) -> None:
        """Store a file; `last` is awaited when nothing is left but to give it its name.

        Raises:
            ArchiveUnavailableError: it could not be stored, or nothing moved for minutes.
            TakenError: `is_new`, and there is one.
        """
        draft, problem = f"{INCOMPLETE}/{uuid.uuid4().hex}", f"{path} could not be stored"
        try:
            async with archive_deadline(problem, _STALL_S) as moved:
                sent = await self._upload(draft, content, moved)
                if await self._sha256(draft, moved) != sent:
                    raise ArchiveUnavailableError(f"{problem}: it arrived damaged")
            async with archive_deadline(problem, _COPY_S):
                if last is not None:
                    await last()
                await uncut(self._name(draft, path, is_new=is_new))
        finally:
            await self._remove(draft)

    async def _upload(self, draft: str, content: BinaryIO, moved: Moved) -> str:
        """Send a file in parts, aborted on whatever goes wrong; returns its SHA-256."""
        writer = obstore.open_writer_async(self.store, draft, buffer_size=_PART_BYTES, max_concurrency=_PARTS_AT_A_TIME)
        try:
            sent = await _send(content, writer, moved)
        except BaseException:
            with suppress(BaseError, OSError):  # what went wrong first counts
                await uncut(writer.__aexit__(*sys.exc_info()))
            raise
        await uncut(writer.close())
        moved()
        return sent

    async def _sha256(self, path: str, moved: Moved) -> str:
        digest = hashlib.sha256()
        found = await obstore.get_async(self.store, path)
        async for piece in found.stream(min_chunk_size=_COPY_BYTES):
            moved()
            digest.update(piece)
        return digest.hexdigest()

    async def _name(self, draft: str, path: str, *, is_new: bool) -> None:
        try:
            await obstore.copy_async(self._copying, draft, path, overwrite=not is_new)
        except AlreadyExistsError as error:
            raise TakenError(f"{path} is there already") from error

    async def _remove(self, draft: str) -> None:
        try:
            async with asyncio.timeout(_DELETE_S):
                await uncut(obstore.delete_async(self.store, draft))
        except FileNotFoundError:
            return
        except (BaseError, OSError) as error:
            log.warning("draft_not_removed", path=draft, detail=type(error).__name__)  # it is swept later

    async def sweep(self) -> None:
        """Remove what killed processes left.

        Raises:
            ArchiveUnavailableError: it could not be listed, or removed.
        """
        async with archive_deadline(f"{INCOMPLETE} could not be swept", _STALL_S) as moved:
            now = datetime.now(UTC)
            async for batch in obstore.list(self.store, prefix=INCOMPLETE):
                for found in batch:
                    moved()
                    if (now - found["last_modified"]).total_seconds() > _LEFT_S:
                        await obstore.delete_async(self.store, found["path"])


def _client(url: str, ours: ClientConfig) -> ClientConfig:
    prefix = _FROM_ENVIRONMENT.get(url.partition("://")[0])
    found = {name: os.environ[key] for name in _OPTIONS if (key := f"{prefix}{name.upper()}") in os.environ}
    return cast("ClientConfig", ours | found)


async def _send(content: BinaryIO, writer: AsyncWritableFile, moved: Moved) -> str:
    """Send a file into an upload, and return its SHA-256."""
    digest = hashlib.sha256()
    content.seek(0)
    while piece := await asyncio.to_thread(content.read, _COPY_BYTES):
        digest.update(piece)
        await writer.write(piece)
        moved()
    return digest.hexdigest()
