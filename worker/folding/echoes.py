"""Publishes echoes to ingress processes that measure how far behind the fold is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import NoReturn

from shared.amqp.echo import echo
from shared.amqp.publisher import Message, Publisher
from shared.amqp.topology import ECHO_TO
from shared.errors import BrokerUnavailableError

_MAX_WAITING = 100  # a probe comes a few times a second from each ingress, and its echo is published at once


class Echoes:
    """Publishes in a separate task, so that the fold does not wait for it."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._waiting: list[Message] = []
        self._added = asyncio.Event()

    def add(self, headers: Iterable[Mapping[str, object]]) -> None:
        """Answer the probes among folded messages."""
        for each in headers:
            if ECHO_TO in each and len(self._waiting) < _MAX_WAITING and (answer := echo(each)):
                self._waiting.append(answer)
                self._added.set()

    async def run(self) -> NoReturn:
        """Publish until cancelled. Run it as a task."""
        while True:
            await self._added.wait()
            self._added.clear()
            messages, self._waiting = self._waiting, []
            for message in messages:
                # The ingress may have gone with its queue. A lost echo counts as one that is late.
                with suppress(BrokerUnavailableError):
                    await self._publisher.publish(message)
