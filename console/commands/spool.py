"""`callfold spool`: what a spool holds, and the drain of a spool whose ingress is gone."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import orjson

from console.counts import counted
from console.safe_text import plain_line
from ingress.spool_contents import FileContents, SpoolContents, read_contents
from ingress.spool_salvage import Salvaged, salvage
from ingress.spool_use import is_drain_locked, is_used
from ingress.spools import Spools
from shared.amqp.server_check import check_server
from shared.config.settings import Settings
from shared.errors import CallfoldError, ConfigError
from shared.exit_codes import EXIT_FAILURE, EXIT_OK
from shared.runtime.broker import broker_address, create_publisher
from shared.runtime.process import background

_LOOK_S = 0.2
_PROGRESS_S = 1.0
# The rows of damaged files need space for a while: only the disk limits them.
_NO_LIMIT = 1 << 42


def status(directory: Path, *, as_json: bool) -> int:
    """Print what a spool holds; returns 1 if a file cannot be read.

    Raises:
        ConfigError: there is no such directory.
    """
    contents = _read(directory)
    is_in_use, is_locked = is_used(directory), is_drain_locked(directory)
    if as_json:
        fields = _total(contents) | {"in_use": is_in_use, "drain_lock_held": is_locked, "files": [*map(_file, contents.files)]}
        sys.stdout.write(orjson.dumps(fields).decode() + "\n")
    else:
        for line in (
            *map(_file_line, contents.files),
            _total_line(contents),
            *_use_lines(is_in_use=is_in_use, is_locked=is_locked),
        ):
            sys.stdout.write(plain_line(line) + "\n")
    return EXIT_FAILURE if any(file.problem for file in contents.files) else EXIT_OK


async def drain(settings: Settings, directory: Path, wait_s: float) -> int:
    """Publish everything in the files of a spool and delete them; returns the exit code.

    Raises:
        BrokerUnavailableError: RabbitMQ cannot be reached.
        CallfoldError: another process uses the directory, or there was no progress for `wait_s`.
        ConfigError: there is no such directory, or RabbitMQ has other queues.
    """
    before = await asyncio.to_thread(_read, directory)
    _refuse_second_drain(directory)
    if before.is_empty:
        sys.stdout.write(f"{directory} holds no callbacks.\n")
    else:
        await check_server(broker_address(settings, "spool"))
    publisher = create_publisher(settings, "spool", retries_conflicts=True)
    async with Spools(directory, publisher, max_bytes=_NO_LIMIT, fold_bytes=settings.fold_queue_bytes) as spools:
        if not spools.use.is_alone():
            raise CallfoldError(_IN_USE.format(directory=directory))
        salvaged = await _salvage(spools)
        if before.is_empty:  # RabbitMQ is not needed
            await spools.is_drained()  # opens all files, so that they are deleted
        else:
            async with background(*spools.tasks()):
                await _until_drained(spools, before.callbacks, wait_s)
        spools.finish()
    after = await asyncio.to_thread(_read, directory)
    return _summarise(before, after, salvaged)


_IN_USE = "Another process uses {directory}. If it is an ingress, it drains the spool. Stop it first if its host is to go."


def _refuse_second_drain(directory: Path) -> None:
    if is_used(directory) or is_drain_locked(directory):
        raise CallfoldError(_IN_USE.format(directory=directory))


async def _salvage(spools: Spools) -> list[Salvaged]:
    try:
        return await salvage(spools)
    except sqlite3.Error as error:
        raise CallfoldError(
            f"A damaged file in {spools.directory} cannot be read now: {error}. Run the command again."
        ) from error


async def _until_drained(spools: Spools, total: int, wait_s: float) -> None:
    """Wait for the drain and print its progress.

    Raises:
        CallfoldError: no message was published for `wait_s`.
    """
    last, changed_at, printed_at = -1, time.monotonic(), time.monotonic()
    while not await spools.is_drained():
        left = await spools.count()
        now = time.monotonic()
        if left != last:
            last, changed_at = left, now
        if now - changed_at > wait_s:
            raise CallfoldError(
                f"No progress for {wait_s:g} s: {counted(left, 'message')} left in {spools.directory}. "
                "Check RabbitMQ and whether workers fold, then run the command again."
            )
        if now - printed_at >= _PROGRESS_S:
            printed_at = now
            sys.stderr.write(f"{counted(left, 'message')} left of {counted(total, 'callback')}\n")
        await asyncio.sleep(_LOOK_S)


def _summarise(before: SpoolContents, after: SpoolContents, salvaged: Sequence[Salvaged]) -> int:
    for file in salvaged:
        if file.kept is not None:
            sys.stderr.write(
                plain_line(
                    f"Some rows of {file.file.name} cannot be read: {file.problem}. The file is kept as {file.kept}. "
                    "`sqlite3 FILE .recover` may show more."
                )
                + "\n"
            )
    if not before.is_empty:
        sys.stdout.write(f"Published {counted(before.callbacks - after.callbacks, 'callback')}.\n")
    if not after.is_empty:
        sys.stderr.write(f"{counted(after.callbacks, 'callback')} left in {after.directory}.\n")
    return EXIT_OK if after.is_empty and not any(file.kept for file in salvaged) else EXIT_FAILURE


def _read(directory: Path) -> SpoolContents:
    if not directory.is_dir():
        raise ConfigError(f"{directory} is no directory. Name the spool with --dir, or set CALLFOLD_SPOOL_DIR.")
    try:
        return read_contents(directory)
    except OSError as error:
        raise ConfigError(f"{directory} cannot be read: {error.strerror}. Run the command as the user of ingress.") from error


def _total(contents: SpoolContents) -> dict[str, object]:
    return {
        "directory": os.fspath(contents.directory.absolute()),
        "messages": contents.messages,
        "callbacks": contents.callbacks,
        "bytes": contents.size,
        "oldest": contents.oldest or None,
        "sources": dict(contents.sources),
    }


def _file(file: FileContents) -> dict[str, object]:
    return {
        "name": file.path.name,
        "set_aside": file.is_set_aside,
        "kept": file.is_kept,
        "messages": file.messages,
        "callbacks": file.callbacks,
        "bytes": file.size,
        "oldest": file.oldest or None,
        "sources": dict(file.sources),
        "unreadable_rows": file.unreadable,
        "problem": file.problem or None,
    }


def _file_line(file: FileContents) -> str:
    what = f"{file.path.name}: {_amount(file.callbacks, file.size)}"
    note = " (set aside as damaged)" if file.is_set_aside else " (kept, its readable rows are published)" if file.is_kept else ""
    problem = f", {counted(file.unreadable, 'row')} unreadable: {file.problem}" if file.problem else ""
    return f"{what}{note}{problem}"


def _total_line(contents: SpoolContents) -> str:
    oldest = f", the oldest of {contents.oldest}" if contents.oldest else ""
    sources = ", ".join(f"{source} {count}" for source, count in sorted(contents.sources.items()))
    return f"Total: {_amount(contents.callbacks, contents.size)}{oldest}{f' ({sources})' if sources else ''}"


def _use_lines(*, is_in_use: bool, is_locked: bool) -> list[str]:
    if is_locked:
        return ["A process drains it."]
    return ["A process uses it." if is_in_use else "No process uses it."]


def _amount(callbacks: int, size: int) -> str:
    return f"{counted(callbacks, 'callback')}, {counted(size, 'byte')}"
