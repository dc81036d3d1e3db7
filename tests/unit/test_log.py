"""Log lines as a process writes them."""

from __future__ import annotations

import json
import subprocess
import sys

_LINES = """
import asyncio, logging, threading
from shared.log import configure, get_logger
configure("auto", "info", process="worker")
log = get_logger("tests")
log.info("call_published", source="acme", call="513")
asyncio.run(asyncio.to_thread(log.info, "process_stopped"))
thread = threading.Thread(target=log.info, args=("record_expired",))
thread.start()
thread.join()
logging.getLogger("alembic.runtime").info("a plugin")
logging.getLogger("aiormq").warning("a reconnect")
logging.getLogger("asyncio").warning("a slow callback")
"""


def test_outside_a_terminal_each_line_is_json_and_names_the_process_also_from_a_thread_of_a_library() -> None:
    written = subprocess.run([sys.executable, "-c", _LINES], capture_output=True, check=True, timeout=60).stderr.decode()
    lines = [json.loads(line) for line in written.splitlines()]
    assert [line["event"] for line in lines] == ["call_published", "process_stopped", "record_expired", "a slow callback"]
    assert {line["process"] for line in lines} == {"worker"}
    assert all(line["level"] and line["timestamp"] for line in lines)
    assert (lines[0]["source"], lines[0]["call"]) == ("acme", "513")
