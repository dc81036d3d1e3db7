"""The command line as a person or a script uses it: real processes, exit codes, what is printed."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from pathlib import Path

import pytest

from console.fleet import free_port
from console.stack import LocalStack
from shared.adapter import Placeholder, parse_link
from shared.settings import variables
from simulator.scenario import SECTOK
from tests.support import VENDOR_LINES, Servers, call_back, eventually, lines_of

ROOT = Path(__file__).resolve().parents[2]
CALLFOLD = (sys.executable, "-c", "from console.cli import main; main()")


async def run(*arguments: str, timeout_s: float = 60, **settings: str) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        *CALLFOLD,
        *arguments,
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "200", "NO_COLOR": "1"} | settings,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), timeout_s)
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize(
    "command",
    [
        "",
        "up",
        "demo",
        "ingress",
        "worker",
        "console",
        "simulate",
        "adapter-link",
        "tail",
        "doctor",
        "settings",
        "dead-letters",
        "show",
        "rebuild",
    ],
)
async def test_every_command_has_help(command: str) -> None:
    code, out, _ = await run(*command.split(), "--help")
    assert code == 0
    assert "Usage:" in out


async def test_the_adapter_link_has_every_placeholder_and_the_secret(tmp_path: Path) -> None:
    sources = tmp_path / "sources.toml"
    sources.write_text('[sources.acme]\nsecret = "s3cret"\n')
    code, out, _ = await run("adapter-link", "acme", "--url", "https://hooks.example.com", CALLFOLD_SOURCES=str(sources))
    assert code == 0
    adapter = parse_link(out)
    assert out.startswith("https://hooks.example.com/callbacks/acme?")
    assert adapter.secret == "s3cret"
    assert set(adapter.meanings.values()) == {str(p) for p in Placeholder}


@pytest.mark.parametrize(
    ("arguments", "settings", "said"),
    [
        (["adapter-link", "nobody", "--url", "https://h"], {}, "no source nobody"),
        (["settings"], {}, ""),
        (["doctor"], {"CALLFOLD_NONSENSE": "1"}, "CALLFOLD_NONSENSE"),
        (["ingress"], {"CALLFOLD_SETTLE_SECONDS": "soon"}, "CALLFOLD_SETTLE_SECONDS"),
        (["worker"], {"CALLFOLD_ARCHIVE_URL": "gopher://x"}, "CALLFOLD_ARCHIVE_URL"),
        (["ingress"], {"CALLFOLD_SOURCES": "/nowhere/sources.toml"}, "/nowhere/sources.toml"),
        (["tail", "--since", "yesterday"], {}, "not a duration"),
        (["console"], {"CALLFOLD_CONSOLE_HOST": "::"}, "CALLFOLD_CONSOLE_KEY"),
    ],
)
async def test_what_cannot_work_is_one_sentence_that_names_it_and_exit_code_2(
    arguments: list[str], settings: dict[str, str], said: str
) -> None:
    code, _, err = await run(*arguments, **settings)
    assert code == (2 if said else 0)
    assert said in err
    assert "Traceback" not in err


@pytest.mark.parametrize("left_out", ["{{CallTypeName}}", "{{DialApiEventName}}", "{{CallID}}"])
async def test_an_adapter_that_cannot_be_folded_stops_ingress_at_start(tmp_path: Path, left_out: str) -> None:
    sources = tmp_path / "sources.toml"
    link = "https://h/?a={{CallTypeName}}&b={{DialApiEventName}}&c={{CallID}}".replace(left_out, "1")
    sources.write_text(f'[sources.acme]\nsecret = "x"\nadapter = "{link}"\n')
    code, _, err = await run("ingress", CALLFOLD_SOURCES=str(sources))
    assert code == 2
    assert left_out in err


async def test_doctor_finds_a_system_that_can_work_and_one_that_cannot(servers: Servers) -> None:
    code, out, err = await run("doctor", "--json", **servers.environment())
    findings = {finding["check"]: finding for finding in map(json.loads, out.splitlines())}
    assert (code, set(findings)) == (0, {"sources", "rabbitmq", "redis", "archive", "spool"}), err
    assert all(finding["ok"] for finding in findings.values()), findings
    away = servers.environment(CALLFOLD_REDIS_URL="redis://127.0.0.1:1/0", CALLFOLD_AMQP_URL="amqp://guest:hunter2@127.0.0.1:1/")
    code, out, err = await run("doctor", **away)
    assert code == 1
    assert out.count("failed") == 2
    assert "hunter2" not in out + err


async def test_a_queue_with_other_arguments_is_a_clear_error_at_start(servers: Servers) -> None:
    name = "recordings.retry.0.3s"
    async with servers.queue("recordings") as queue:
        other = await queue.channel.declare_queue(name, durable=True, arguments={"x-queue-type": "quorum", "x-message-ttl": 999})
        try:
            settings = servers.environment(CALLFOLD_RECORDING_RETRY_SECONDS="0.3", CALLFOLD_INGRESS_PORT="0")
            code, _, err = await run("ingress", **settings)
        finally:
            await other.delete(if_unused=False, if_empty=False)
    assert code == 2
    assert name in err
    assert "Traceback" not in err


async def test_tail_prints_what_matches_from_some_time_ago(servers: Servers) -> None:
    port = free_port()
    async with servers.fleet() as fleet:
        fleet.add("ingress", "ingress", {"CALLFOLD_INGRESS_PORT": str(port)})
        fleet.add("worker", "worker", {})
        await fleet.start_all()
        async with servers.subscribed("call.#"):
            await call_back(port, lines_of(4242))
        code, out, _ = await run(
            "tail", "call.completed.*.answered", "--since", "1h", "--json", "--limit", "1", **servers.environment()
        )
    assert code == 0
    event = json.loads(out)
    assert event["type"] == "callfold.call.completed.v1"
    assert event["data"]["outcome"] == "answered"


async def test_the_example_consumer_handles_each_call_once(servers: Servers) -> None:
    port = free_port()
    async with servers.fleet() as fleet:
        fleet.add("ingress", "ingress", {"CALLFOLD_INGRESS_PORT": str(port)})
        fleet.add("worker", "worker", {})
        await fleet.start_all()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(ROOT / "docs" / "examples" / "consumer.py"),
            *("--limit", "2"),
            env=os.environ | {"AMQP_URL": servers.stack.amqp_url, "CONSUMER_DB": str(servers.directory / "seen.sqlite")},
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        assert b"waiting" in await asyncio.wait_for(process.stdout.readline(), 20)
        await call_back(port, [*VENDOR_LINES, *VENDOR_LINES, *lines_of(514)])
        out, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0
    assert sorted(line.split()[0] for line in out.decode().splitlines()) == ["default/513/1", "default/514/1"]
    async with servers.queue("example.calls") as queue:
        await queue.channel.queue_delete(queue.name)


async def test_simulate_compares_what_was_published_with_the_truth(servers: Servers) -> None:
    port = free_port()
    async with servers.fleet() as fleet:
        fleet.add("ingress", "ingress", {"CALLFOLD_INGRESS_PORT": str(port)})
        fleet.add("worker", "worker", {})
        await fleet.start_all()
        # Without settings of its own the source is `default`, whose adapter is the vendor's sample.
        code, out, err = await run(
            "simulate",
            *("--calls", "10", "--rate", "20", "--json", "--ingress", f"http://127.0.0.1:{port}"),
            **servers.environment(),
        )
    assert code == 0, out + err
    told = json.loads(out)
    assert (told["calls"], told["differences"]) == (10, [])


async def test_up_runs_everything_and_leaves_nothing_behind(tmp_path: Path) -> None:
    port, console_port = free_port(), free_port()
    process = await asyncio.create_subprocess_exec(
        *CALLFOLD,
        *("up", "--directory", str(tmp_path / "up"), "--ingress", "2"),
        env=os.environ
        | {"CALLFOLD_INGRESS_PORT": str(port), "CALLFOLD_CONSOLE_PORT": str(console_port), "CALLFOLD_DRAIN_SECONDS": "0"},
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
    )
    assert process.stderr is not None
    said = b""
    while b"Ctrl-C" not in said:
        line = await asyncio.wait_for(process.stderr.readline(), 60)
        assert line, said.decode()
        said += line
    assert await call_back(port, VENDOR_LINES) == [200] * 4
    assert _processes_of(tmp_path)
    exported = [line.removeprefix("export ").split("=", 1) for line in (tmp_path / "up" / "env").read_text().splitlines()]
    code, out, _ = await run("doctor", **dict(exported))
    assert (code, "failed" in out) == (0, False), out
    process.send_signal(signal.SIGTERM)
    await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0
    assert _processes_of(tmp_path) == []


async def test_the_demo_ends_well_and_leaves_its_archive_and_nothing_running(tmp_path: Path) -> None:
    code, out, err = await run("demo", "--calls", "30", "--directory", str(tmp_path / "demo"), timeout_s=90)
    assert code == 0, out + err
    assert '"id": "default/513/1"' in out
    assert "every one was published exactly as it happened" in " ".join(out.split())
    assert len(list((tmp_path / "demo" / "archive").rglob("*.wav"))) >= 10
    assert (tmp_path / "demo" / "archive" / "default").is_dir()
    assert _processes_of(tmp_path) == []
    logs = "".join(log.read_text() for log in (tmp_path / "demo" / "logs").iterdir())
    secret = re.search(r'secret = "(.+)"', (tmp_path / "demo" / "sources.toml").read_text())
    assert secret is not None
    assert secret[1] not in logs + out
    assert SECTOK not in logs + out


async def test_kill_9_of_the_owner_takes_the_private_servers_down(tmp_path: Path) -> None:
    code = (
        "import asyncio, os, signal, sys\nfrom pathlib import Path\nfrom console.stack import LocalStack\n"
        "async def main():\n    async with LocalStack(Path(sys.argv[1])):\n        os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, str(tmp_path / "stack"), cwd=ROOT)
    assert await asyncio.wait_for(process.wait(), 60) == -9

    async def gone() -> bool:
        return _processes_of(tmp_path) == []

    await eventually(gone)


async def test_a_second_stack_in_one_directory_is_refused(tmp_path: Path) -> None:
    async with LocalStack(tmp_path, only=frozenset({"redis"})):
        code, _, err = await run("up", "--directory", str(tmp_path), CALLFOLD_AMQP_URL="amqp://127.0.0.1:1/")
    assert code == 2
    assert "Another stack runs" in err


async def test_missing_servers_are_named_with_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("console.stack._SERVER_PLACES", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Exception, match=r"redis-server.*apt-get install.*dnf install.*brew install"):
        await LocalStack(tmp_path / "stack").__aenter__()


def test_every_setting_is_documented_with_its_default() -> None:
    text = (ROOT / "docs" / "settings.md").read_text()
    for variable, default, description in variables():
        assert f"| `{variable}` | {f'`{default}`' if default else 'none'} | {description} |" in text


def _processes_of(directory: Path) -> list[str]:
    """Processes that were started from a directory: it stands in their command line or environment."""
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        try:
            told = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except (OSError, ProcessLookupError):
            continue
        if str(directory).encode() in told:
            found.append(told[:200].decode("utf-8", "replace"))
    return found
