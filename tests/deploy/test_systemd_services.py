"""The release that install.sh builds, started by the ExecStart lines of its units: their user, environment and system calls.

systemd itself is not needed: `confined.py` starts a program as a unit says.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from console.local.child_process import kill_with_parent
from tests.helpers.pace import LIMIT_S, PACE
from tests.helpers.servers import Servers, eventually, lines_of
from tests.helpers.systemd_units import FAMILIES, SERVICES, Unit, allowed_calls, read_unit

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
SECRET = "hunter2-hunter2"
KEY = "0123456789abcdef-key"
USER = 10001 if os.getuid() == 0 else os.getuid()
LIBRARIES = """
import ctypes, subprocess, sys, threading, pyrage, soundfile, obstore, uvloop, hiredis, orjson, sqlite3, sqlalchemy, phonenumbers
from obstore.store import LocalStore, S3Store
identity = pyrage.x25519.Identity.generate()
assert pyrage.decrypt(pyrage.encrypt(b"x", [identity.to_public()]), [identity]) == b"x"
async def main():
    store = LocalStore(".", mkdir=True)
    await obstore.put_async(store, "proof", b"x")
    assert bytes((await (await obstore.get_async(store, "proof")).bytes_async())) == b"x"
    try:
        await obstore.get_async(S3Store("b", endpoint="http://127.0.0.1:1", access_key_id="a", secret_access_key="b",
            client_options={"allow_http": True}, retry_config={"max_retries": 0}, region="x"), "k")
    except Exception as error:
        assert "127.0.0.1" in str(error), error
uvloop.run(main())
# As the console decodes: by a descriptor. A file object would need callbacks, whose code cffi writes to memory.
soundfile.write("proof.ogg", [[0.0], [0.5]], 8000, format="OGG", subtype="VORBIS")
with open("proof.ogg", "rb") as file, soundfile.SoundFile(file.fileno(), closefd=False) as audio:
    assert audio.frames == 2
with open("proof.ogg", "rb") as file:
    subprocess.run([sys.executable, "-I", "-m", "console.decode_audio", "peaks"], stdin=file, stdout=subprocess.DEVNULL, check=True)
print("all work")
"""


@dataclass(slots=True)
class Machine:
    """Directories that install.sh has filled, and what systemd would add to them."""

    root: Path

    def settle(self, unit: Unit) -> dict[str, str]:
        """Create the directories of a unit, read its credentials, and return its environment, all below the root."""
        for path in " ".join(unit.values["StateDirectory"]).split():
            (self.root / "var/lib" / path).mkdir(parents=True, exist_ok=True)
        for written in [self.root / "var/lib/callfold", *(self.root / "var/lib/callfold").rglob("*")]:
            os.chown(written, USER, USER)
        identifier, _, directory = unit.last("LoadCredential").partition(":")
        credentials = self.root / "run/credentials" / unit.name
        credentials.mkdir(parents=True, exist_ok=True)
        for file in self.below(directory).iterdir():
            shutil.copy(file, credentials / f"{identifier}_{file.name}")
            os.chown(credentials / f"{identifier}_{file.name}", USER, USER)
        unit.values["EnvironmentFile"] = [
            f"-{self.below(path[1:])}" if path.startswith("-") else str(self.below(path))
            for path in unit.values["EnvironmentFile"]
        ]
        environment = unit.environment(credentials)
        return {name: self.moved(value) for name, value in environment.items()} | {"PATH": "/usr/bin:/bin"}

    def below(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def moved(self, text: str) -> str:
        """Put this machine's root in front of the paths of a text."""
        for path in ("/etc/callfold", "/var/lib/callfold", "/opt/callfold"):
            text = text.replace(path, str(self.below(path)))
        return text

    def command(self, unit: Unit, *instead: str) -> list[str]:
        program = instead or self.moved(unit.last("ExecStart")).split()
        setting = {
            "uid": USER,
            "umask": int(unit.last("UMask"), 8),
            "files": int(unit.last("LimitNOFILE")),
            "directory": self.moved(unit.last("WorkingDirectory")),
            "allowed": allowed_calls(unit.values["SystemCallFilter"]),
            "families": [FAMILIES[name] for name in unit.last("RestrictAddressFamilies").split()],
            "command": list(program),
        }
        return [sys.executable, "-I", str(HERE / "confined.py"), json.dumps(setting)]


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    # The user of a service must reach it, so pytest's own directory is of no use.
    root = Path(tempfile.mkdtemp(prefix="callfold-machine-"))
    root.chmod(0o755)
    try:
        install = [str(ROOT / "deploy/systemd/install.sh"), "--destdir", str(root)]
        done = subprocess.run(install, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert not list(root.rglob("*.egg-info"))
        yield Machine(root)
    finally:
        shutil.rmtree(root)


@asynccontextmanager
async def started(machine: Machine, unit: Unit, more: Mapping[str, str], log: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start a unit, wait until it reports that it serves, and stop it as systemd does."""
    path = machine.root / f"notify-{unit.name}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor, log.open("wb") as output:
        supervisor.bind(str(path))
        path.chmod(0o777)
        supervisor.setblocking(False)  # noqa: FBT003 - the standard library's argument
        environment = {**machine.settle(unit), "NOTIFY_SOCKET": str(path), **more}
        command = [*kill_with_parent(), *machine.command(unit)]
        process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=output, stderr=output)
        try:
            report = asyncio.ensure_future(asyncio.get_running_loop().sock_recv(supervisor, 100))
            end = asyncio.ensure_future(process.wait())
            await asyncio.wait((report, end), timeout=LIMIT_S, return_when=asyncio.FIRST_COMPLETED)
            assert report.done(), log.read_text()
            assert report.result() == b"READY=1"
            yield process
            process.send_signal(signal.SIGHUP)  # ExecReload
            process.terminate()
            async with asyncio.timeout(unit.seconds("TimeoutStopSec") * PACE):
                assert await process.wait() == 0, log.read_text()
        except TimeoutError:
            pytest.fail(log.read_text())
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            path.unlink()


def write_settings(machine: Machine, servers: Servers) -> None:
    """What an operator writes after the installation."""
    etc = machine.root / "etc/callfold"
    (etc / "sources.toml").write_text(f'[sources.acme]\nsecret = "{SECRET}"\n')
    os.chown(etc / "sources.toml", 0, USER)
    (etc / "sources.toml").chmod(0o640)
    for role in ("ingress", "worker", "console", "history"):
        (etc / "secrets" / role / "AMQP_URL").write_text(f"{servers.stack.amqp_url}\n")
    for role in ("worker", "console"):
        (etc / "secrets" / role / "REDIS_URL").write_text(f"{servers.stack.redis_url}\n")
    (etc / "secrets/console/CONSOLE_KEY").write_text(f"{KEY}\n")


async def test_every_service_works_with_the_user_the_environment_and_the_system_calls_of_its_unit(
    machine: Machine, servers: Servers
) -> None:
    write_settings(machine, servers)
    units = {name: read_unit(name, machine.root / "usr/local/lib/systemd/system") for name in SERVICES}
    logs = {name: servers.directory / f"{name}.log" for name in SERVICES}
    more = {"CALLFOLD_DRAIN_SECONDS": "0"}
    async with (
        started(machine, units["callfold-history"], more, logs["callfold-history"]),
        started(machine, units["callfold-worker@1"], more, logs["callfold-worker@1"]),
        started(machine, units["callfold-console"], more, logs["callfold-console"]),
        started(machine, units["callfold-ingress@1"], more, logs["callfold-ingress@1"]),
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session,
    ):
        for line in lines_of(77):  # the first one too: ready means that the port is open
            async with session.get(f"http://127.0.0.1:8101/callbacks/acme?token={SECRET}&{line}") as response:
                assert response.status == 200

        async def is_in_history() -> bool:
            async with session.get("http://127.0.0.1:8081/calls", params={"source": "acme"}) as response:
                assert response.status == 200, await response.text()
                return bool((await response.json())["calls"])

        await eventually(is_in_history)
        for port in (9101, 9111, 9121, 9122):

            async def is_ready(port: int = port) -> bool:
                async with session.get(f"http://127.0.0.1:{port}/readyz") as response:
                    return response.status == 200

            await eventually(is_ready)
    for name, log in logs.items():
        text = log.read_text()
        assert '"process_stopped"' in text, name
        for forbidden in ("Permission denied", "Operation not permitted", "Traceback", SECRET, KEY, servers.stack.amqp_url):
            assert forbidden not in text, (name, text)
    assert (machine.root / "var/lib/callfold/spool-1").is_dir()
    assert (machine.root / "var/lib/callfold/history/history.sqlite").stat().st_mode & 0o007 == 0


@pytest.mark.parametrize("name", SERVICES)
def test_the_libraries_work_without_memory_that_is_both_writable_and_executable(
    machine: Machine, name: str, tmp_path: Path
) -> None:
    unit = read_unit(name)
    (machine.root / "var/lib/callfold").mkdir(parents=True, exist_ok=True)
    os.chown(machine.root / "var/lib/callfold", USER, USER)
    python = str(machine.root / "opt/callfold/current/bin/python")
    done = subprocess.run(machine.command(unit, python, "-I", "-c", LIBRARIES), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "all work\n"), done.stderr


@pytest.mark.parametrize(
    "attempt",
    [
        "mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC)",
        "os.chroot('/')",
        "socket.socket(socket.AF_PACKET)",
        "os.chown('.', 1, 1)",
    ],
)
def test_the_confinement_of_this_test_refuses_what_a_unit_forbids(machine: Machine, attempt: str) -> None:
    unit = read_unit("callfold-ingress@1")
    (machine.root / "var/lib/callfold").mkdir(parents=True, exist_ok=True)
    command = machine.command(unit, "/usr/bin/python3", "-I", "-c", f"import mmap, os, socket; {attempt}")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Operation not permitted" in done.stderr
