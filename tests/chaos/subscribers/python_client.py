"""A subscriber with the Python client. It keeps nothing but its log, so a restart may receive an event again.

python -m tests.chaos.subscribers.python_client DIRECTORY NAME URLS [REPLAY]
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from pathlib import Path
from typing import Literal

from callfold_client import subscribe
from tests.chaos.subscribers.received import ReceivedLog


async def main() -> None:
    directory, name, urls, *replay = sys.argv[1:]
    logging.basicConfig(level=logging.WARNING)
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    since: Literal["first"] | None = "first" if replay else None
    with ReceivedLog(Path(directory), name) as log:
        async with subscribe(urls, queue=f"chaos.{name}", filter="#", replay_since=since) as events:
            log.ready()
            async for event in events:
                log.add(event.body)


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except asyncio.CancelledError:
        sys.exit(0)
