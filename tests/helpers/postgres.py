"""A private PostgreSQL on loopback, for one run of the tests."""

from __future__ import annotations

import asyncio
import os
import pwd
import secrets
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg

from console.local.ports import free_port
from console.local.stack import Server
from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import eventually

PASSWORD = secrets.token_hex(8)
_TLS_DECLINED = (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", b"N")  # a request for TLS, declined


class PostgreSQL(Server):
    """One server. SIGTERM would wait for its clients; SIGQUIT ends it at once, and it recovers as after a crash."""

    async def stop(self) -> None:
        await self.end(signal.SIGQUIT, within_s=LIMIT_S)

    async def begin(self) -> None:
        await self.start()
        await eventually(self._takes_connections)

    async def _takes_connections(self) -> bool:
        try:
            await self.run("SELECT 1")
        except psycopg.OperationalError:  # it is starting up
            return False
        return True

    async def run(self, statement: str) -> None:
        url = self.url("postgres").replace("+psycopg", "")
        async with await psycopg.AsyncConnection.connect(url, autocommit=True, connect_timeout=round(LIMIT_S)) as connection:
            await connection.execute(statement.encode())

    async def new_database(self, more: str = "") -> str:
        """Make a database and return its URL."""
        name = f"history_{secrets.token_hex(4)}"
        await self.run(f"CREATE DATABASE {name} {more}")
        return self.url(name)

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://callfold:{PASSWORD}@127.0.0.1:{self.port}/{database}"


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres")) or [Path(shutil.which("postgres") or "postgres")]
    return found[-1].parent


def _somebody() -> tuple[list[str], pwd.struct_passwd | None]:
    """PostgreSQL refuses to run as root: tell how to be somebody else."""
    if os.geteuid() != 0:
        return [], None
    user = pwd.getpwnam("postgres")
    identity = (f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups")
    return ["setpriv", *identity, "--pdeathsig", "KILL", "--"], user  # the kernel drops the death signal when the user changes


@asynccontextmanager
async def postgresql() -> AsyncIterator[PostgreSQL]:
    """Run a server whose own collation is not bytewise, in a directory that its user owns."""
    as_somebody, user = _somebody()
    with tempfile.TemporaryDirectory(prefix="callfold-postgresql-") as name:
        directory = Path(name)
        (directory / "password").write_text(PASSWORD)
        if user is not None:
            for path in (directory, directory / "password"):
                os.chown(path, user.pw_uid, user.pw_gid)
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": name}
        initdb = await asyncio.create_subprocess_exec(
            *as_somebody,
            str(_programs() / "initdb"),
            *("-D", str(directory / "data"), "-U", "callfold", "--pwfile", str(directory / "password")),
            *("--auth=scram-sha-256", "-E", "UTF8", "--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en", "--no-sync"),
            cwd=directory,
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await asyncio.wait_for(initdb.communicate(), LIMIT_S)
        assert initdb.returncode == 0, said.decode()
        port = free_port()
        options = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", "fsync": "off"}
        options |= {"full_page_writes": "off", "max_connections": 40, "shared_buffers": "16MB"}
        command = [*as_somebody, str(_programs() / "postgres"), "-D", str(directory / "data")]
        command += [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        server = PostgreSQL("postgresql", command, environment, port=port, log=directory / "log", probe=_TLS_DECLINED)
        await server.begin()
        try:
            yield server
        finally:
            await server.stop()
