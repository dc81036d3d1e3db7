"""Files in an object store: a file has its name only if it is complete and undamaged (docs/adr/0005-archive-writes.md).

A file is uploaded in parts under a temporary name, read back, and copied to its final name within the store. The store rejects
the copy if the final name is taken.
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

from shared.archive.checksum import sha256_of_stream
from shared.archive.deadlines import ArchiveUnavailableError, archive_deadline, finish_if_cancelled
from shared.archive.local_disk import INCOMPLETE, Confirm, OnProgress, TakenError
from shared.log import get_logger

log = get_logger(__name__)

_COPY_BYTES = 1 << 20
_PART_BYTES = 5 << 20
# One, so that all parts but the last have arrived, and can be aborted, before the upload is completed.
_PARTS_AT_A_TIME = 1
# The longest time that a part may take, sent or read back.
_STALL_S = 240.0
# A copy of gigabytes within the store is one request, which may not respond until it is done.
_COPY_S = 900.0
_DELETE_S = 60
_RETRIES: RetryConfig = {"max_retries": 3, "retry_timeout": timedelta(seconds=60)}
# Callers have shorter time limits. The total time is long, because a body may arrive slowly.
_CLIENT: ClientConfig = {"read_timeout": timedelta(seconds=60), "timeout": timedelta(days=1)}
_COPYING: ClientConfig = {"timeout": timedelta(seconds=_COPY_S)}
# obstore ignores client options in the environment once it is given any, so they are read here.
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
# Longer than any upload takes. Only a killed process leaves an older one.
_ABANDONED_S = 2 * 86400


class Bucket:
    """Writes files to an object store."""

    def __init__(self, url: str) -> None:
        """Open the store at a URL.

        Raises:
            BaseError, ValueError: the URL is not supported.
        """
        scheme, client, copying = url.partition("://")[0], _client(url, _CLIENT), _client(url, _COPYING)
        if scheme in {"s3", "s3a"}:
            # The server compares each part with its checksum, and rejects a part that was damaged in transit.
            self.store: ObjectStore = S3Store.from_url(
                url, config={"checksum_algorithm": "SHA256"}, client_options=client, retry_config=_RETRIES
            )
            # A client without checksums: with them, S3 requires one for each copied part, which obstore does not send.
            config = {} if "AWS_COPY_IF_NOT_EXISTS" in os.environ else {"copy_if_not_exists": "multipart"}
            self._copying: ObjectStore = S3Store.from_url(url, config=config, client_options=copying, retry_config=_RETRIES)  # type: ignore[arg-type]
        else:
            self.store = from_url(url, config=None, client_options=client, retry_config=_RETRIES)
            self._copying = from_url(url, config=None, client_options=copying, retry_config=_RETRIES)

    async def put(self, path: str, content: BinaryIO, confirm: Confirm | None, *, is_new: bool) -> None:
        """Store a file. `confirm` is awaited immediately before the file gets its final name.

        Raises:
            ArchiveUnavailableError: it could not be stored, or no data moved for minutes.
            TakenError: `is_new`, and the file exists.
        """
        upload, problem = f"{INCOMPLETE}/{uuid.uuid4().hex}", f"{path} could not be stored"
        try:
            async with archive_deadline(problem, _STALL_S) as on_progress:
                sent = await self._upload(upload, content, on_progress)
                if await self._sha256(upload, on_progress) != sent:
                    raise ArchiveUnavailableError(f"{problem}: it arrived damaged")
            async with archive_deadline(problem, _COPY_S):
                if confirm is not None:
                    await confirm()
                await finish_if_cancelled(self._copy(upload, path, is_new=is_new))
        finally:
            await self._remove(upload)

    async def _upload(self, upload: str, content: BinaryIO, on_progress: OnProgress) -> str:
        """Send a file in parts and return its checksum. Abort the upload on any error."""
        writer = obstore.open_writer_async(self.store, upload, buffer_size=_PART_BYTES, max_concurrency=_PARTS_AT_A_TIME)
        try:
            sent = await _send(content, writer, on_progress)
        except BaseException:
            with suppress(BaseError, OSError):  # the first error is the one to report
                await finish_if_cancelled(writer.__aexit__(*sys.exc_info()))
            raise
        await finish_if_cancelled(writer.close())
        on_progress()
        return sent

    async def _sha256(self, path: str, on_progress: OnProgress) -> str:
        response = await obstore.get_async(self.store, path)
        return await sha256_of_stream(response.stream(min_chunk_size=_COPY_BYTES), on_progress)

    async def _copy(self, upload: str, path: str, *, is_new: bool) -> None:
        try:
            await obstore.copy_async(self._copying, upload, path, overwrite=not is_new)
        except AlreadyExistsError as error:
            raise TakenError(f"{path} already exists") from error

    async def _remove(self, upload: str) -> None:
        try:
            async with asyncio.timeout(_DELETE_S):
                await finish_if_cancelled(obstore.delete_async(self.store, upload))
        except FileNotFoundError:
            return
        except (BaseError, OSError) as error:
            log.warning("upload_not_removed", path=upload, detail=type(error).__name__)  # `sweep` removes it later

    async def sweep(self) -> None:
        """Remove the uploads of killed processes.

        Raises:
            ArchiveUnavailableError: they could not be listed or removed.
        """
        async with archive_deadline(f"{INCOMPLETE} could not be cleaned up", _STALL_S) as on_progress:
            now = datetime.now(UTC)
            async for batch in obstore.list(self.store, prefix=INCOMPLETE):
                for entry in batch:
                    on_progress()
                    if (now - entry["last_modified"]).total_seconds() > _ABANDONED_S:
                        await obstore.delete_async(self.store, entry["path"])


def _client(url: str, defaults: ClientConfig) -> ClientConfig:
    prefix = _FROM_ENVIRONMENT.get(url.partition("://")[0])
    options = {name: os.environ[key] for name in _OPTIONS if (key := f"{prefix}{name.upper()}") in os.environ}
    return cast("ClientConfig", defaults | options)


async def _send(content: BinaryIO, writer: AsyncWritableFile, on_progress: OnProgress) -> str:
    digest = hashlib.sha256()
    content.seek(0)
    while piece := await asyncio.to_thread(content.read, _COPY_BYTES):
        digest.update(piece)
        await writer.write(piece)
        on_progress()
    return digest.hexdigest()
