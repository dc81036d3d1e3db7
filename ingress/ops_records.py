"""The conditions of one machine on its disk: a small file in the spool directory, which a lock gives to one ingress process.

It exists only after there was a condition. If the disk fails, the process keeps the records in memory.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path

import orjson

from shared.domain.condition import read_record
from shared.file_lock import open_lock_file, try_lock
from shared.log import get_logger
from shared.outage import Outage

log = get_logger(__name__)
_WRITES = Outage(log, "ops_conditions_not_stored", "ops_conditions_stored")

_FILE, _LOCK = "ops.json", "ops.lock"


class FileRecords:
    """The records of a directory. The other methods need `acquire`."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / _FILE
        self._lock_path = directory / _LOCK
        self._handle: int | None = None
        self._records: dict[str, bytes] | None = None

    async def exist(self) -> bool:
        """Return whether there are records, of this process or an earlier one."""
        return bool(self._records) or await asyncio.to_thread(self._has_file)

    async def acquire(self) -> bool:
        """Return whether this process reports the conditions of the directory.

        The kernel releases the lock when the process dies. On a disk without locks each process reports its own.
        """
        return self._handle is not None or await asyncio.to_thread(self._lock)

    def _has_file(self) -> bool:
        try:
            return self._path.exists()
        except OSError:  # not permitted
            return False

    def _lock(self) -> bool:
        try:
            handle = open_lock_file(self._lock_path)
        except OSError:
            return True
        try:
            is_locked = try_lock(handle)
        except OSError:
            is_locked = True
        if is_locked:
            self._handle, self._records = handle, None  # the holder before may have changed the file
        else:
            os.close(handle)
        return is_locked

    def close(self) -> None:
        """Release the lock."""
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)

    async def read(self) -> dict[str, bytes]:
        """Return all records. A file that cannot be read counts as empty."""
        if self._records is None:
            self._records = await asyncio.to_thread(self._load)
        return dict(self._records)

    async def swap(self, name: str, before: bytes | None, after: bytes | None) -> bool:
        """Replace a record that is still the expected one; returns whether it was."""
        records = await self.read()
        if records.get(name) != before:
            return False
        if after is None:
            records.pop(name, None)
        else:
            records[name] = after
        self._records = records
        try:
            await asyncio.to_thread(self._store, records)
            _WRITES.succeeded()
        except OSError as error:
            _WRITES.failed(error.strerror or str(error))
        return True

    async def delete_if_over(self) -> None:
        """Delete the file if no condition is raised and no event is to be published."""
        records = [read_record(text) for text in (await self.read()).values()]
        if self._handle is not None and all(record and not record.is_raised and record.event is None for record in records):
            with suppress(OSError):
                await asyncio.to_thread(self._path.unlink, missing_ok=True)
            self._records = {}

    def _load(self) -> dict[str, bytes]:
        try:
            rows = orjson.loads(self._path.read_bytes())
            return {name: text.encode() for name, text in rows.items() if isinstance(text, str)}
        except (OSError, ValueError, AttributeError):
            return {}

    def _store(self, records: dict[str, bytes]) -> None:
        """Write the file as a whole, so that a crash leaves the old or the new one."""
        part = self._path.with_suffix(".part")
        with part.open("wb") as file:
            file.write(orjson.dumps({name: text.decode() for name, text in records.items()}))
            file.flush()
            os.fsync(file.fileno())
        part.rename(self._path)
