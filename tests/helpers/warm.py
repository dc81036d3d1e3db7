"""Processes of Callfold from a warm start: one interpreter imports everything once and forks a process for each that is asked for.

Each is a process of its own, with its own id, environment, working directory and output, as if it had been started by exec. Only
the second of CPU time that the imports take is saved, several hundred times in a run. That the programs start on their own is
tested by those tests that start them by their command line (`demo`, `up`, `deploy`).
"""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import gc
import importlib
import io
import itertools
import json
import os
import pkgutil
import random
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import coverage

from tests.helpers import checked_events, full_disk, shared_machine

ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = {name: ROOT / name for name in ("shared", "ingress", "worker", "console", "simulator")}
_PACKAGES["callfold_client"] = ROOT / "clients" / "python" / "src" / "callfold_client"
_CLI = "callfold"
_PR_SET_PDEATHSIG = 1
_LENGTH_BYTES = 4


@dataclass(slots=True, eq=False)
class WarmProcess:
    """What tests use of `asyncio.subprocess.Process`."""

    pid: int
    returncode: int | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait(self) -> int:
        await self.ended.wait()
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            with suppress(ProcessLookupError):  # it has ended, and its exit code is on the way
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Starter:
    """The warm interpreter, as this process sees it. It ends with this process."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        cold = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
        command = [sys.executable, "-m", "tests.helpers.warm", str(theirs.fileno())]
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd=ROOT, env=cold, stdin=subprocess.DEVNULL)
        theirs.close()
        self._received = b""
        self._numbers = itertools.count()
        self._started: dict[int, asyncio.Future[WarmProcess]] = {}
        self._running: dict[int, WarmProcess] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._read)

    def _read(self) -> None:
        self._received += self._socket.recv(1 << 16)
        while b"\n" in self._received:
            line, _, self._received = self._received.partition(b"\n")
            told = json.loads(line)
            if "number" in told:
                self._running[told["pid"]] = process = WarmProcess(told["pid"])
                self._started.pop(told["number"]).set_result(process)
            else:
                process = self._running.pop(told["pid"])
                process.returncode = told["returncode"]
                process.ended.set()

    async def start(
        self, arguments: Sequence[str], *, environment: Mapping[str, str], output: tuple[IO[Any], IO[Any]], is_session: bool
    ) -> WarmProcess:
        """Start `python -m <module>`, or `callfold <arguments>`; its output goes to two files."""
        number = next(self._numbers)
        self._started[number] = self._loop.create_future()
        request = {"number": number, "arguments": list(arguments), "environment": dict(environment), "is_session": is_session}
        body = json.dumps(request).encode()
        socket.send_fds(self._socket, [len(body).to_bytes(_LENGTH_BYTES)], [stream.fileno() for stream in output])
        self._socket.sendall(body)
        return await self._started[number]

    def close(self) -> None:
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self._process.wait()


_starters: list[Starter] = []


def starter() -> Starter:
    """Return the warm interpreter of this process; it is started at the first call."""
    if not _starters:
        _starters.append(Starter())
    return _starters[0]


def must_start_cold(environment: Mapping[str, str]) -> bool:
    """Return whether an environment has something for the interpreter or the loader: only exec heeds it."""
    return any(name.startswith(("LD_", "PYTHON")) and os.environ.get(name) != value for name, value in environment.items())


def close() -> None:
    """End the warm interpreter, if there is one."""
    while _starters:
        _starters.pop().close()


# From here on: in the warm interpreter.


def _serve(requests: socket.socket) -> None:
    _import_all()
    shared_machine.keep_to(imports_all=True)
    checked_events.install()
    gc.collect()
    gc.freeze()  # so that the pages stay shared
    assert threading.active_count() == 1, "a process that has threads must not fork"
    _die_with_parent()
    woken, wake = socket.socketpair()
    wake.setblocking(False)  # noqa: FBT003 - it takes no name
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    selector = selectors.DefaultSelector()
    selector.register(requests, selectors.EVENT_READ)
    selector.register(woken, selectors.EVENT_READ)
    while True:
        ready = {key.fileobj for key, _ in selector.select()}
        if woken in ready:
            woken.recv(1 << 12)
            _report_ends(requests)
        if requests in ready:
            length, output, _, _ = socket.recv_fds(requests, _LENGTH_BYTES, 2)
            if not length:
                return
            request = json.loads(_read_exactly(requests, int.from_bytes(length)))
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                for own in (requests, woken, wake):
                    own.close()
                selector.close()
                _run(request, output)
            for stream in output:
                os.close(stream)
            requests.sendall(json.dumps({"number": request["number"], "pid": pid}).encode() + b"\n")


def _import_all() -> None:
    for package, directory in _PACKAGES.items():
        for module in pkgutil.walk_packages([str(directory)], f"{package}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    for lazy in ("phonenumbers", "rich.markdown", "typer.rich_utils"):  # loaded at the first use
        importlib.import_module(lazy)
    importlib.import_module("console.page.render").compile_templates()  # each console would do so again at its start


def _read_exactly(requests: socket.socket, size: int) -> bytes:
    body = b""
    while len(body) < size:
        body += requests.recv(size - len(body))
    return body


def _report_ends(requests: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        requests.sendall(json.dumps({"pid": pid, "returncode": os.waitstatus_to_exitcode(status)}).encode() + b"\n")


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _run(request: dict[str, Any], output: Sequence[int]) -> None:
    """Become the process that was asked for; does not return."""
    code = 1
    try:
        _settle_in(request, output)
        try:
            _main(request["arguments"])
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
            if isinstance(end.code, str):
                sys.stderr.write(f"{end.code}\n")
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
    except BaseException:  # noqa: BLE001 - as the interpreter does with what nobody caught
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _settle_in(request: dict[str, Any], output: Sequence[int]) -> None:
    if request["is_session"]:
        os.setsid()
    _die_with_parent()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for wanted, given in enumerate(output, start=1):
        os.dup2(given, wanted)
        os.close(given)
    os.environ.clear()
    os.environ.update(request["environment"])
    full_disk.begin()
    shared_machine.keep_to_environment()
    time.tzset()
    random.seed()
    sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), encoding="utf-8", write_through=True)
    sys.stderr = io.TextIOWrapper(
        io.FileIO(2, "w", closefd=False), encoding="utf-8", errors="backslashreplace", line_buffering=True
    )
    if os.environ.get("COVERAGE_PROCESS_CONFIG") or os.environ.get("COVERAGE_PROCESS_START"):
        coverage.process_startup(force=True)


def _main(arguments: Sequence[str]) -> None:
    program, *rest = arguments
    sys.argv = ["-c" if program == _CLI else program, *rest]
    if program == _CLI:
        importlib.import_module("console.cli.main").main()
    else:
        runpy.run_module(program, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
