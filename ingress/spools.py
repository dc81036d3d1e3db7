"""The files of a spool directory with all that fills and drains them: the spool, and the callbacks that wait for the fold."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

from ingress.fold_depth import FoldDepth
from ingress.probes import Probes
from ingress.publish_or_spool import DurableWriter
from ingress.spool import Spool
from ingress.spool_contents import read_contents
from ingress.spool_drain import SpoolDrain
from ingress.spool_use import SpoolUse
from ingress.waiting import Waiting
from shared.amqp.echo import EchoQueue
from shared.amqp.publisher import Publisher
from shared.amqp.topology import CALLBACKS_FOLD_BYTES
from shared.errors import SpoolUnavailableError


class Spools:
    """The spools of a directory. While its tasks run, they are drained.

    Attributes:
        use: the mark that this process uses the directory.
    """

    use: SpoolUse

    def __init__(self, directory: Path, publisher: Publisher, *, max_bytes: int, fold_bytes: int = CALLBACKS_FOLD_BYTES) -> None:
        """Prepare; `max_bytes` limits each file, and `fold_bytes` is the limit of `callbacks.fold`."""
        self.directory = directory
        self._publisher = publisher
        self._echoes = EchoQueue(publisher.address)
        self.depth = FoldDepth(publisher, fold_bytes)
        self.probes = Probes(self._echoes)
        self.spool = Spool(directory, max_bytes=max_bytes)
        self.waiting = Waiting(directory, publisher, self.depth, self.probes, max_bytes=max_bytes)
        self.writer = DurableWriter(publisher, self.spool, self.depth, self.probes)
        self.drain = SpoolDrain(publisher, self.spool, self.writer)
        self._opened = AsyncExitStack()
        self._is_finished = False

    async def __aenter__(self) -> Self:
        self.use = await asyncio.to_thread(SpoolUse, self.directory)
        self._opened.callback(self.use.close)
        await self._opened.enter_async_context(self.spool)
        await self._opened.enter_async_context(self.waiting)
        return self

    async def __aexit__(self, *_: object) -> None:
        async with self._opened:
            if self._is_finished and self.use.try_exclude():
                for spool in self._all():
                    await spool.delete_if_empty()

    def _all(self) -> list[Spool]:
        return [self.spool, *self.waiting.spools]

    def tasks(self) -> list[Coroutine[object, object, object]]:
        """Return the endless tasks that publish, measure the fold and drain."""
        return [
            self._publisher.run(),
            self.depth.run(),
            self._echoes.run(),
            self.probes.run(),
            self.drain.run(),
            self.waiting.run(),
        ]

    def finish(self) -> None:
        """Let empty files be deleted when the spools are closed, unless another process uses the directory."""
        self._is_finished = True

    async def count(self) -> int:
        """Count the messages that are not published yet.

        Raises:
            SpoolUnavailableError: a file cannot be read.
        """
        return sum([await spool.count() for spool in self._all()])

    async def is_drained(self) -> bool:
        """Return whether no callback is left in a file, apart from damaged files that were set aside."""
        try:
            await self.waiting.open_left()
            return all([await spool.is_drained() for spool in self._all()])
        except SpoolUnavailableError:  # nothing is left in a directory that never worked
            return not await asyncio.to_thread(_has_messages, self.directory)


def _has_messages(directory: Path) -> bool:
    try:
        files = read_contents(directory).files
        return any(file.messages or file.problem for file in files if not (file.is_set_aside or file.is_kept))
    except OSError:
        return True
