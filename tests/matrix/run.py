"""`make matrix`: run tests on each supported release of RabbitMQ, Redis and Valkey; end with a table and an exit code.

The servers of this machine's Debian release run as they are. Those of other releases run in a chroot. `release.sh` makes it
once. `inside.sh` mounts what the servers share with the tests. A script with the name of each server program starts the one
of the other release, so the tests and the product do not know the difference.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from console.local.child_process import kill_with_parent

_ROOT = Path(__file__).resolve().parents[2]
_SCRIPTS = Path(__file__).resolve().parent
# The main job, faults and load on whole clusters; the fold; each use of a server; commands on real servers.
_TESTS = (
    "tests/system/clusters",
    "tests/chaos",
    "tests/system/worker",
    "tests/system/console",
    "tests/integration",
)
_RABBITMQ = ("rabbitmq-server", "rabbitmqctl", "rabbitmq-diagnostics", "rabbitmq-plugins", "rabbitmq-queues", "rabbitmq-upgrade")
_RABBITMQ_BIN = "/usr/lib/rabbitmq/bin"
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_SHOWN_FAILURES = 10


@dataclass(frozen=True, slots=True)
class Combination:
    """A Debian release, and which of its two stores runs in the place of Redis."""

    release: str
    store: str

    @property
    def name(self) -> str:
        return f"{self.release}-{self.store}"

    @property
    def packages(self) -> tuple[str, ...]:
        """All packages that any combination with this release needs, so that they share a directory."""
        stores = sorted({each.store for each in COMBINATIONS if each.release == self.release})
        return ("rabbitmq-server", *(f"{store}-server" for store in stores))

    def programs(self) -> Mapping[str, str]:
        """Return each program that tests start, and where it is in the release."""
        rabbitmq = {name: f"{_RABBITMQ_BIN}/{name}" for name in _RABBITMQ}
        store = {f"redis-{what}": f"/usr/bin/{self.store}-{what}" for what in ("server", "cli")}
        return {**rabbitmq, **store, "epmd": "/usr/bin/epmd", "erl_call": "/usr/bin/erl_call"}


COMBINATIONS = (
    Combination("bookworm", "redis"),
    Combination("trixie", "redis"),
    Combination("trixie", "valkey"),
    Combination("forky", "valkey"),
)


@dataclass(frozen=True, slots=True)
class Result:
    """One row of the table."""

    combination: Combination
    broker: str
    store: str
    summary: str
    is_passed: bool


def main(names: Sequence[str], tests: Sequence[str]) -> int:
    """Run the tests on the named combinations, or on all; returns 1 if a test failed, 2 if nothing could run."""
    by_name = {each.name: each for each in COMBINATIONS}
    if unknown := [name for name in names if name not in by_name]:
        return _refuse(f"there is no combination {', '.join(unknown)}. There are {', '.join(by_name)}")
    if os.geteuid() != 0:
        return _refuse("root is needed for debootstrap and chroot. Run `sudo make matrix`, or run it in a container as root")
    cache = Path(os.environ.get("MATRIX_DIR") or _ROOT / "build" / "matrix").resolve()
    cache.mkdir(parents=True, exist_ok=True)
    results = [_run(by_name[name], cache, tests or _TESTS) for name in names or by_name]
    _print(results)
    return 0 if all(result.is_passed for result in results) else 1


def _run(combination: Combination, cache: Path, tests: Sequence[str]) -> Result:
    log = cache / f"{combination.name}.log"
    sys.stdout.write(f"{combination.name}: tests run, output in {log}\n")
    sys.stdout.flush()
    with tempfile.TemporaryDirectory() as programs:
        prefix = _prefix(combination, cache, Path(programs))
        if prefix is None:
            return Result(combination, "", "", "its servers could not be unpacked", is_passed=False)
        command = [sys.executable, "-m", "pytest", "-q", "-n", "auto", "--dist", "loadscope", "--no-loadscope-reorder", *tests]
        began = time.monotonic()
        with log.open("wb") as output:
            process = subprocess.run(
                [*prefix, *command, "-m", "rabbitmq or redis"], cwd=_ROOT, stdout=output, stderr=subprocess.STDOUT, check=False
            )
        lines = log.read_text("utf-8", "replace").splitlines()
        failures = [line for line in lines if line.startswith(("FAILED ", "ERROR "))]
        sys.stdout.writelines(f"  {line[:200]}\n" for line in failures[:_SHOWN_FAILURES])
        summary = next((line for line in reversed(lines) if re.search(r"\d+ (passed|failed|error)", line)), "no test ran")
        minutes = (time.monotonic() - began) / 60
        return Result(
            combination,
            _version([*prefix, f"{_RABBITMQ_BIN}/rabbitmqctl", "version"]),
            _version([*prefix, "redis-server", "--version"]),
            f"{summary.strip('= ').partition(' in ')[0]} in {minutes:.0f} min",
            is_passed=process.returncode == 0,
        )


def _prefix(combination: Combination, cache: Path, programs: Path) -> list[str] | None:
    """Return the start of a command line that runs the rest with the combination's servers; None if they cannot be unpacked."""
    if combination.release == platform.freedesktop_os_release().get("VERSION_CODENAME") and combination.store == "redis":
        return kill_with_parent()
    root = cache / combination.release
    made = subprocess.run([str(_SCRIPTS / "release.sh"), combination.release, str(root), *combination.packages], check=False)
    if made.returncode != 0:
        return None
    for name, path in combination.programs().items():
        script = programs / name
        # Each step replaces its process by the next, so the server has the pid that the test started.
        script.write_text(f'#!/bin/sh\nexec chroot {shlex.quote(str(root))} /usr/bin/env PATH={_PATH} {path} "$@"\n', "utf-8")
        script.chmod(0o755)
    namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    return [*kill_with_parent(), *namespaces, str(_SCRIPTS / "inside.sh"), str(root), str(programs)]


def _version(command: Sequence[str]) -> str:
    """Return the version that a program prints."""
    printed = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"LC_ALL": "C"}).stdout
    match = re.search(r"\b(\d+\.\d+\.\d+)\b", printed)
    return match[1] if match else "unknown"


def _print(results: Sequence[Result]) -> None:
    rows = [("combination", "RabbitMQ", "store", "", "tests")]
    for each in results:
        verdict = "ok" if each.is_passed else "failed"
        rows.append(
            (each.combination.name, each.broker, f"{each.combination.store.capitalize()} {each.store}", verdict, each.summary)
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        sys.stdout.write("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n")


def _refuse(why: str) -> int:
    sys.stderr.write(f"matrix: {why}.\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(os.environ.get("ON", "").split(), sys.argv[1:]))
