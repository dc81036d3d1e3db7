"""The image is built and run: as its user, on a read-only root, with calls through it. It needs root on Debian."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tomllib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import psycopg
import pytest

from console.local.child_process import ChildProcess
from console.local.ports import free_port
from tests.helpers.console import AUTHORIZED, KEY
from tests.helpers.container_image import ROOT, Image, build, compressed_bytes, copy_of_the_context, layers, mounted
from tests.helpers.pace import LIMIT_S
from tests.helpers.postgres import PostgreSQL
from tests.helpers.servers import Servers, eventually

# The history reads `calls.journal` from its beginning.
pytestmark = pytest.mark.usefixtures("fresh_stack")
CALLS = 20
USER = 10001
HADOLINT = ROOT / "build" / "tools" / "bin" / "hadolint"
OFFICIAL_BASE_BYTES = 46_000_000
"""python:3.11-slim-bookworm for amd64, compressed. The stand-in is larger."""


@pytest.fixture(scope="module")
def name() -> str:
    return build("first")


@pytest.fixture(scope="module")
def image(name: str) -> Iterator[Image]:
    with mounted(name) as found:
        yield found


def test_the_image_names_its_user_as_a_number_and_has_labels_a_health_check_and_a_signal(image: Image) -> None:
    config = image.config
    assert (config["User"], config["StopSignal"], config["Entrypoint"]) == (f"{USER}:{USER}", "SIGTERM", ["callfold"])
    assert config["Healthcheck"]["Test"][:3] == ["CMD", "python", "-c"]
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in config["Labels"].items()}
    assert {"title", "description"} <= labels.keys()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert (labels["licenses"], labels["version"]) == ("Apache-2.0", project["version"])
    assert re.fullmatch(r"[0-9a-f]{40}", labels["revision"])


def test_a_second_build_from_another_copy_has_the_same_layers(name: str, tmp_path: Path) -> None:
    assert layers(build("second", copy_of_the_context(tmp_path))) == layers(name)


def test_the_image_is_under_200_mb_as_a_registry_stores_it(name: str) -> None:
    base, *added = compressed_bytes(name)
    print(f"base {base / 1e6:.0f} MB, added {sum(added) / 1e6:.0f} MB")  # noqa: T201 - figures for the release notes
    assert base + sum(added) < 200e6
    assert OFFICIAL_BASE_BYTES + sum(added) < 130e6


def test_nothing_in_the_image_can_be_written_and_no_tool_of_the_build_is_in_it(image: Image) -> None:
    code, said = image.run(
        "sh", "-c", "id -u; id -g; touch /tmp/it && echo tmp; touch /var/lib/callfold/it; touch /opt/callfold/it"
    )
    assert code != 0
    assert said.split("\n")[:3] == [f"{USER}", f"{USER}", "tmp"]
    assert said.count("Read-only file system") == 2
    assert image.run("python", "-c", "import pip")[0] == image.run("python", "-c", "import setuptools")[0] == 1
    assert image.run("python", "-c", "import psycopg; assert psycopg.pq.__impl__ == 'binary'") == (0, "")
    files = {str(path.relative_to(image.root)) for path in (image.root / "opt" / "callfold").rglob("*")}
    assert not [path for path in files if re.search(r"/(gcc|cc|make|uv)$|\.git/|/tests/helpers/", path)]
    writable = subprocess.run(
        ["find", image.root, "-xdev", "-type", "f", "-perm", "/002", "-not", "-path", "*/proc/*"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert writable.stdout == ""


def test_the_bill_of_materials_has_every_package_with_version_hash_and_licence(image: Image) -> None:
    code, text = image.run("cat", "/usr/share/callfold/sbom.cdx.json")
    assert code == 0
    bom = json.loads(text)
    assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.6")
    assert bom["metadata"]["component"]["name"] == "callfold"
    by_purl = {re.sub(r"\?.*", "", component["purl"]): component for component in bom["components"]}
    lock = _locked((ROOT / "deploy" / "requirements.txt").read_text("utf-8"))
    code, said = image.run("python", "-c", _INSTALLED)
    installed: dict[str, str] = json.loads(said)
    assert code == 0
    assert installed.pop("callfold")
    for package, version in installed.items():
        component = by_purl.pop(f"pkg:pypi/{package}@{version}")
        assert {each["content"] for each in component["hashes"]} <= lock[package], package
        assert component["licenses"], package
    debian = subprocess.run(
        ["dpkg-query", f"--root={image.root}", "-W", "-f", "${Package} ${Version}\n"], capture_output=True, text=True, check=True
    )
    found = {
        (component["name"], component["version"]) for purl, component in by_purl.items() if purl.startswith("pkg:deb/debian/")
    }
    assert found == {tuple(line.split()) for line in debian.stdout.splitlines()}
    assert [purl for purl in by_purl if not purl.startswith("pkg:deb/")] == [f"pkg:generic/python@{_version(image)}"]


_INSTALLED = """
import json, re
from importlib.metadata import distributions
print(json.dumps({re.sub(r"[-_.]+", "-", each.metadata["Name"]).lower(): each.version for each in distributions(path=["/opt/callfold/lib/python3.11/site-packages"])}))
"""


def _locked(text: str) -> Mapping[str, set[str]]:
    pins: dict[str, set[str]] = {}
    hashes: set[str] = set()
    for line in text.splitlines():
        if pin := re.match(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==", line):
            hashes = pins.setdefault(re.sub(r"[-_.]+", "-", pin[1]).lower(), set())
        elif sha := re.search(r"--hash=sha256:(\w+)", line):
            hashes.add(sha[1])
    return pins


def _version(image: Image) -> str:
    return image.run("python", "-c", "import platform; print(platform.python_version())")[1].strip()


@asynccontextmanager
async def _system(
    image: Image, servers: Servers, postgres: PostgreSQL
) -> AsyncIterator[tuple[dict[str, ChildProcess], dict[str, Any]]]:
    """Run ingress, worker, console and history from the image; each can write what compose.yaml mounts."""
    data = servers.directory / "data"
    simulator, ingress, console = free_port(), free_port(), free_port()
    (data / "etc").mkdir(parents=True)
    (data / "etc" / "sources.toml").write_text(f'[sources.default]\nrecording_origin = "http://127.0.0.1:{simulator}"\n', "utf-8")
    mounts = []
    for directory in ("spool", "downloads", "archive"):
        (data / directory).mkdir()
        mounts.append(f"{data / directory}:/var/lib/callfold/{directory}")
        os.chown(data / directory, USER, USER)
    (data / "etc" / "sources.toml").chmod(0o644)
    settings = {
        "CALLFOLD_AMQP_URL": servers.stack.amqp_url,
        "CALLFOLD_REDIS_URL": servers.stack.redis_url,
        "CALLFOLD_SOURCES": "/mnt/sources.toml",
        "CALLFOLD_HISTORY_URL": await postgres.new_database(),
        "CALLFOLD_CONSOLE_KEY": KEY,
        "CALLFOLD_INGRESS_PORT": str(ingress),
        "CALLFOLD_CONSOLE_PORT": str(console),
        "CALLFOLD_DRAIN_SECONDS": "0",
        **dict.fromkeys(("CALLFOLD_INGRESS_HOST", "CALLFOLD_CONSOLE_HOST", "CALLFOLD_METRICS_HOST"), "127.0.0.1"),
    }
    mounts.append(f"{data / 'etc'}:/mnt")
    processes, ports = {}, {"ingress": ingress, "console": console, "simulator": simulator}
    async with AsyncExitStack() as closing:
        for role in ("ingress", "worker", "console", "history"):
            own = settings | {"CALLFOLD_METRICS_PORT": str(free_port())}
            process = image.process(role, role, settings=own, mounts=mounts, log=servers.directory / f"{role}.log")
            closing.push_async_callback(process.end, signal.SIGTERM, within_s=LIMIT_S)
            await process.start_until(partial(_is_ready, own["CALLFOLD_METRICS_PORT"]), within_s=LIMIT_S)
            processes[role] = process
        yield processes, {"settings": settings, "mounts": mounts, **ports}


async def _is_ready(port: str) -> bool:
    with suppress(aiohttp.ClientError):
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/readyz") as response:
            return response.status == 200
    return False


async def test_twenty_calls_go_through_the_image_into_postgresql_and_are_those_of_the_simulation(
    image: Image, servers: Servers, postgres: PostgreSQL
) -> None:
    async with _system(image, servers, postgres) as (processes, about):
        for role, process in processes.items():
            assert _uids(process.pid) == {USER}, role
            health = image.run(
                *image.config["Healthcheck"]["Test"][1:],
                settings={"CALLFOLD_METRICS_PORT": process.environment["CALLFOLD_METRICS_PORT"]},
            )
            assert health == (0, ""), role
        simulate = (
            "simulate",
            "--calls",
            str(CALLS),
            "--ingress",
            f"http://127.0.0.1:{about['ingress']}",
            "--port",
            str(about["simulator"]),
        )
        simulation = image.process(
            "simulate",
            *simulate,
            "--json",
            settings=about["settings"],
            mounts=about["mounts"],
            log=servers.directory / "simulate.log",
        )
        await simulation.start_until(_has_begun, within_s=LIMIT_S)
        assert await simulation.wait() == 0, simulation.log_tail()
        assert json.loads(simulation.log_tail().splitlines()[-1])["calls"] == CALLS
        url = about["settings"]["CALLFOLD_HISTORY_URL"].replace("+psycopg", "")

        async def calls_in_postgresql() -> bool:
            async with await psycopg.AsyncConnection.connect(url) as connection:
                row = await (await connection.execute("SELECT count(*) FROM calls")).fetchone()
                return row == (CALLS,)

        await eventually(calls_in_postgresql)
        calls = f"http://127.0.0.1:{about['console']}/calls"
        async with aiohttp.ClientSession(headers=AUTHORIZED) as session, session.get(calls) as response:
            assert len((await response.json())["calls"]) == CALLS
        for role, process in processes.items():
            await process.end(signal.SIGTERM, within_s=LIMIT_S)
            assert process.returncode == 0, f"{role}: {process.log_tail()}"


async def _has_begun() -> bool:
    return True


def _uids(pid: int) -> set[int]:
    status = Path(f"/proc/{pid}/status").read_text("utf-8")
    (line,) = re.findall(r"(?m)^Uid:\s+(.*)$", status)
    return {int(uid) for uid in line.split()}


def test_hadolint_finds_nothing_and_finds_a_fault() -> None:
    text = (ROOT / "deploy" / "Containerfile").read_text("utf-8")
    for changed, code in (
        (text, 0),
        (text.replace("USER 10001:10001", "USER root"), 1),
        (text.replace("COPY shared", "ADD shared"), 1),
    ):
        check = subprocess.run([HADOLINT, "-"], input=changed, capture_output=True, text=True, check=False, timeout=60)
        assert check.returncode == code, check.stdout
