"""The last work of an ingress that stops: it drains its spool, and reports what is left.

An ingress that is scaled in may never come back, and its disk may be deleted. RabbitMQ may come back while it waits, so it
uses its whole time limit. If another process uses the same directory, that one goes on to drain it, and there is no wait.
"""

from __future__ import annotations

import asyncio
import shlex

from ingress.spool_contents import SpoolContents, read_contents, set_aside_files
from ingress.spools import Spools
from shared.log import get_logger
from shared.runtime.process import StopRequest, wait_at_most

log = get_logger(__name__)

_POLL_S = 0.1


async def drain_before_exit(spools: Spools, stop: StopRequest, limit_s: float) -> str:
    """Wait until the spools are drained, for a limited time and until a second signal, while their tasks run.

    Returns a sentence about what is left, or '' if the directory holds no callbacks for which this process is responsible.
    """
    if not await spools.is_drained():
        if spools.use.leave_to_others():
            log.info("spool_left_to_other_process", directory=str(spools.directory))
            return ""
        log.info("shutdown_waits_for_spool", directory=str(spools.directory), seconds=limit_s)
        await _until_drained(spools, stop, limit_s)
    elif not await asyncio.to_thread(set_aside_files, spools.directory):
        spools.finish()
        return ""
    spools.finish()
    return await _report(spools)


async def _until_drained(spools: Spools, stop: StopRequest, limit_s: float) -> None:
    deadline = asyncio.get_running_loop().time() + limit_s
    while asyncio.get_running_loop().time() < deadline and not stop.urgent.is_set():
        if await spools.is_drained():
            return
        await wait_at_most(stop.urgent, _POLL_S)


async def _report(spools: Spools) -> str:
    directory = spools.directory.absolute()
    try:
        contents = await asyncio.to_thread(read_contents, directory)
    except OSError as error:
        contents = SpoolContents(directory, [])
        problem = str(error)
    else:
        if contents.is_empty:
            return ""
        problem = "; ".join(contents.problems)
    command = f"callfold spool drain --dir {shlex.quote(str(directory))}"
    facts = {"detail": problem} if problem else {}
    log.error("spool_left", directory=str(directory), callbacks=contents.callbacks, bytes=contents.size, command=command, **facts)
    return (
        f"{contents.callbacks} callbacks ({contents.size} bytes) are left in {directory}. "
        f"Start an ingress with this directory again, or run `{command}`."
    )
