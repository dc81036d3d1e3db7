"""Services of the compose files as processes of this machine, each in namespaces of its own, as containers have them.

A service gets the command, environment, files, secrets, volumes and host name that the files give it, and an address on a private
network whose names are those of the services. Its programs are those of the machine. It needs root on Linux.
"""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from console.local.child_process import ChildProcess
from tests.helpers.compose import DEPLOY, interpolated

_RUN = Path(__file__).resolve().parents[1] / "deploy" / "run_service.sh"
_SEARCHED = "/usr/lib/rabbitmq/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LIMIT_S = 60


class Services:
    """The named services of merged compose files, each with an address in one private network."""

    def __init__(self, compose: Mapping[str, Any], names: Sequence[str], directory: Path, variables: Mapping[str, str]) -> None:
        self._compose = compose
        self.directory = directory
        self._variables = variables
        self._addresses = {name: f"10.99.0.{number}" for number, name in enumerate(names, start=11)}
        self._network = f"callfold-{os.getpid()}"
        self.secrets: dict[str, str] = {}
        (directory / "hosts").write_text(
            "127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in self._addresses.items()), "utf-8"
        )

    @contextmanager
    def network(self) -> Iterator[None]:
        """Make the network: a bridge in a namespace of its own, and one namespace for each service."""
        names = [self._network, *(self._namespace(name) for name in self._addresses)]
        try:
            for name in names:
                _ip("netns", "add", name)
                _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", self._network, "link", "add", "bridge", "type", "bridge")
            _ip("-n", self._network, "link", "set", "bridge", "up")
            for number, (name, address) in enumerate(self._addresses.items()):
                inside, port = self._namespace(name), f"port{number}"
                _ip("-n", self._network, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", inside)
                _ip("-n", self._network, "link", "set", port, "master", "bridge", "up")
                _ip("-n", inside, "address", "add", f"{address}/24", "dev", "eth0")
                _ip("-n", inside, "link", "set", "eth0", "up")
            yield
        finally:
            for name in self._addresses:
                self.kill(name)
            for name in names:
                subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True, timeout=_LIMIT_S)

    def process(self, name: str) -> ChildProcess:
        """Make the process of a service. It is not started."""
        service = self._compose["services"][name]
        command = [*service.get("entrypoint", []), *service["command"]]
        return ChildProcess(name, self._wrapped(name, command), self._environment(name), log=self.directory / f"{name}.log")

    def run(self, name: str, *command: str, environment: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Run a command where the process of a service runs, as `docker compose exec` does."""
        done = subprocess.run(
            self._wrapped(name, command),
            env={**self._environment(name), **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_LIMIT_S,
            check=False,
        )
        return done.returncode, done.stdout

    def kill(self, name: str) -> None:
        """Kill every process of a service, as the end of a container does: a server outlives the script that started it."""
        listed = ["ip", "netns", "pids", self._namespace(name)]
        for pid in subprocess.run(listed, check=False, capture_output=True, text=True, timeout=_LIMIT_S).stdout.split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)

    def is_healthy(self, name: str) -> bool:
        """Run the health check of a service."""
        test = self._compose["services"][name]["healthcheck"]["test"]
        return self.run(name, *test[1:])[0] == 0

    def _wrapped(self, name: str, command: Sequence[str]) -> list[str]:
        service = self._compose["services"][name]
        namespace = ["ip", "netns", "exec", self._namespace(name), "unshare", "--mount", "--uts", "sh", str(_RUN)]
        hostname, user, root = service.get("hostname", name), service.get("user", "root"), self.directory / "roots" / name
        root.mkdir(parents=True, exist_ok=True)
        return [
            *namespace,
            str(root),
            hostname,
            user,
            f"{self.directory / 'hosts'}:/etc/hosts",
            f"{self.directory / 'bin'}:/usr/local/sbin",
            *self._mounts(name, user),
            "--",
            *command,
        ]

    def _mounts(self, name: str, user: str) -> Iterator[str]:
        service = self._compose["services"][name]
        owner = pwd.getpwnam(user)
        for mount in service.get("volumes", []):
            source, target = mount.split(":")[:2]
            if source.startswith("./"):
                yield f"{DEPLOY / source}:{target}"
                continue
            volume = self.directory / "volumes" / source
            volume.mkdir(parents=True, exist_ok=True)
            os.chown(volume, owner.pw_uid, owner.pw_gid)
            yield f"{volume}:{target}"
        for secret in service.get("secrets", []):
            file = self.directory / "secrets" / name / secret
            file.parent.mkdir(parents=True, exist_ok=True)
            if not file.exists():
                file.write_text(self.secrets[secret], "utf-8")
                os.chown(file, owner.pw_uid, owner.pw_gid)
                file.chmod(0o400)
            yield f"{file}:/run/secrets/{secret}"

    def _environment(self, name: str) -> dict[str, str]:
        given = self._compose["services"][name].get("environment", {})
        environment = {key: interpolated(str(value), self._variables) for key, value in given.items()}
        return {"PATH": f"/usr/local/sbin:{_SEARCHED}", "LC_ALL": "C.UTF-8", "HOME": "/var/lib/rabbitmq"} | environment

    def _namespace(self, name: str) -> str:
        return f"{self._network}-{name}"


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=_LIMIT_S)
