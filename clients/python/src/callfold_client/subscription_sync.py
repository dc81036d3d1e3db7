"""Subscriptions for programs without asyncio. The connection lives in a thread, so its heartbeats go on while the body runs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from callfold_client.events import Event
from callfold_client.subscription import Subscription, subscribe

_T = TypeVar("_T")
_P = ParamSpec("_P")


class SyncSubscription:
    """The events of a subscription. Use it with `with`, then `for`. It means the same as `Subscription`."""

    def __init__(self, make: Callable[[], Subscription]) -> None:
        self._subscription = make()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="callfold-client", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._wait(self._subscription.__aenter__())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._wait(self._subscription.__aexit__(kind, error, trace))
        finally:
            self._end()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        event = self._wait(self._next())
        if event is None:
            raise StopIteration
        return event

    def stop(self) -> None:
        """End the iteration after the current event. Any thread and a signal handler may call it."""
        with suppress(RuntimeError):  # the subscription is closed already
            self._loop.call_soon_threadsafe(self._subscription.stop)

    async def _next(self) -> Event | None:
        async for event in self._subscription:
            return event
        return None

    def _wait(self, work: Coroutine[Any, Any, _T]) -> _T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # Ctrl-C interrupts this wait only
            raise

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()


def _with_the_arguments_of(
    _: Callable[_P, Subscription], /
) -> Callable[[Callable[..., SyncSubscription]], Callable[_P, SyncSubscription]]:
    """Give a function the arguments of `subscribe`, for type checkers and editors."""
    return lambda function: function


@_with_the_arguments_of(subscribe)
def subscribe_sync(*arguments: Any, **options: Any) -> SyncSubscription:  # noqa: ANN401 - those of `subscribe`
    """Subscribe to events, with the arguments of `subscribe`."""
    return SyncSubscription(lambda: subscribe(*arguments, **options))
