"""The command line as a person or a script uses it: real processes, exit codes, what is printed."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sqlite3
import sys
from contextlib import closing
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from console.local import stack as stack_module
from console.local.child_process import ProcessFailedError
from console.local.ports import free_port
from console.local.rabbitmq_node import node_environment
from console.local.stack import LocalStack
from shared.domain.adapter_link import Placeholder, parse_link
from simulator.scenario import SECTOK
from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import VENDOR_LINES, Servers, call_back, callfold, ended, lines_of
from tests.helpers.shared_machine import AWAY

ROOT = Path(__file__).resolve().parents[3]


async def test_the_version_is_told() -> None:
    code, out, _ = await callfold("--version")
    assert (code, out.split()[0]) == (0, "callfold")
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", out.split(" ")[1])


async def test_simulate_says_at_once_that_nobody_listens() -> None:
    code, _, err = await callfold("simulate", "--ingress", f"http://127.0.0.1:{free_port()}")
    assert (code, "No ingress listens at http://127.0.0.1" in err) == (1, True)


@pytest.mark.parametrize(
    "command",
    [
        "",
        "up",
        "demo",
        "ingress",
        "worker",
        "console",
        "history",
        "simulate",
        "adapter-link",
        "tail",
        "doctor",
        "settings",
        "calls",
        "dead-letters",
        "dead-letters list",
        "dead-letters redrive",
        "dial",
        "show",
        "rebuild",
        "recordings",
        "recordings get",
        "recordings backfill",
        "retention",
        "hold",
    ],
)
async def test_every_command_has_help(command: str) -> None:
    code, out, _ = await callfold(*command.split(), "--help")
    assert code == 0
    assert "Usage:" in out
    is_group = command in {"dead-letters", "recordings"}
    assert is_group or re.search(rf"`[^`]*callfold {command}\b", " ".join(out.split())), "an example"


async def test_the_adapter_link_has_every_placeholder_and_the_secret(tmp_path: Path) -> None:
    sources = tmp_path / "sources.toml"
    sources.write_text('[sources.acme]\nsecret = "s3cret"\n')
    code, out, _ = await callfold("adapter-link", "acme", "--url", "https://hooks.example.com", CALLFOLD_SOURCES=str(sources))
    assert code == 0
    adapter = parse_link(out)
    assert out.startswith("https://hooks.example.com/callbacks/acme?")
    assert adapter.secret == "s3cret"
    assert set(adapter.meanings.values()) == {str(p) for p in Placeholder}


async def test_the_adapter_link_as_json_names_what_the_source_does_not_know(tmp_path: Path) -> None:
    sources = tmp_path / "sources.toml"
    told = {}
    for given in ("", 'adapter = "https://h/?CallType={{CallTypeName}}&Event={{DialApiEventName}}&CallID={{CallID}}"\n'):
        sources.write_text(f'[sources.acme]\nsecret = "s3cret"\n{given}')
        wanted = ("adapter-link", "acme", "--url", "https://hooks.example.com")
        code, out, err = await callfold(*wanted, "--json", CALLFOLD_SOURCES=str(sources))
        _, link, _ = await callfold(*wanted, CALLFOLD_SOURCES=str(sources))
        told = json.loads(out)
        assert (code, told["source"], told["link"]) == (0, "acme", link.strip())
        assert bool(told["not_in_adapter"]) == bool(err) == bool(given)
    assert "Guid" in told["not_in_adapter"]
    assert "CallID" not in told["not_in_adapter"]


@pytest.mark.parametrize(
    ("arguments", "settings", "said"),
    [
        (["adapter-link", "nobody", "--url", "https://h"], {}, "Unknown source nobody"),
        (["settings"], {}, ""),
        (["doctor"], {"CALLFOLD_NONSENSE": "1"}, "CALLFOLD_NONSENSE"),
        (["ingress"], {"CALLFOLD_SETTLE_SECONDS": "soon"}, "CALLFOLD_SETTLE_SECONDS"),
        (["worker"], {"CALLFOLD_ARCHIVE_URL": "gopher://x"}, "CALLFOLD_ARCHIVE_URL"),
        (["worker"], {"CALLFOLD_RECORDING_DIR": "/proc/self/fdinfo"}, "CALLFOLD_RECORDING_DIR"),
        (["ingress"], {"CALLFOLD_SOURCES": "/nowhere/sources.toml"}, "/nowhere/sources.toml"),
        (["tail", "--since", "yesterday"], {}, "neither a duration nor a time"),
        (["console"], {"CALLFOLD_CONSOLE_HOST": "::"}, "CALLFOLD_CONSOLE_KEY"),
        (["history"], {"CALLFOLD_HISTORY_URL": "mysql://u:hunter2@h/d"}, "CALLFOLD_HISTORY_URL"),
    ],
)
async def test_what_cannot_work_is_one_sentence_that_names_it_and_exit_code_2(
    arguments: list[str], settings: dict[str, str], said: str
) -> None:
    code, _, err = await callfold(*arguments, **settings)
    assert code == (2 if said else 0)
    assert said in err
    assert "Traceback" not in err


@pytest.mark.parametrize("left_out", ["{{CallTypeName}}", "{{DialApiEventName}}", "{{CallID}}"])
async def test_an_adapter_that_cannot_be_folded_stops_ingress_at_start(tmp_path: Path, left_out: str) -> None:
    sources = tmp_path / "sources.toml"
    link = "https://h/?a={{CallTypeName}}&b={{DialApiEventName}}&c={{CallID}}".replace(left_out, "1")
    sources.write_text(f'[sources.acme]\nsecret = "x"\nadapter = "{link}"\n')
    code, _, err = await callfold("ingress", CALLFOLD_SOURCES=str(sources))
    assert code == 2
    assert left_out in err


async def test_doctor_finds_a_system_that_can_work_and_one_that_cannot(servers: Servers) -> None:
    code, out, err = await callfold("doctor", "--json", **servers.environment())
    findings = {finding["check"]: finding for finding in map(json.loads, out.splitlines())}
    checks = {
        "sources",
        "secrets",
        "recording origins",
        "dial links",
        "rabbitmq",
        "policies",
        "dead letters",
        "redis",
        "lost state",
        "request ids",
        "previous secrets",
        "placeholders",
        "refusals",
        "clock",
        "pbx clocks",
        "pbx",
    } | {
        "archive",
        "spool",
        "downloads",
    }
    assert (code, set(findings)) == (0, checks), err
    assert all(finding["ok"] for finding in findings.values()), findings
    away = servers.environment(CALLFOLD_REDIS_URL="redis://127.0.0.1:1/0", CALLFOLD_AMQP_URL="amqp://guest:hunter2@127.0.0.1:1/")
    away["CALLFOLD_RECORDING_DIR"] = "/proc/self/fdinfo"  # where nobody can write, root included
    code, out, err = await callfold("doctor", **away, **AWAY)
    assert code == 1
    assert len(re.findall(r"^ *[a-z ]+  failed  ", out, re.MULTILINE)) == 4
    assert "CALLFOLD_RECORDING_DIR /proc/self/fdinfo cannot be written" in " ".join(out.split())
    assert "hunter2" not in out + err


async def test_doctor_tries_every_broker_in_turn_and_says_which_answered(servers: Servers) -> None:
    there = servers.environment()["CALLFOLD_AMQP_URL"]
    away = "amqp://guest:hunter2@127.0.0.1:1/,amqp://guest:hunter2@127.0.0.1:2/"
    (code, out, _), (code_of_none, report, _) = await asyncio.gather(
        callfold("doctor", "--json", **servers.environment(CALLFOLD_AMQP_URL=f"{away},{there}")),
        callfold("doctor", "--json", **servers.environment(CALLFOLD_AMQP_URL=away), **AWAY),
    )
    assert code == 0
    assert f"at 127.0.0.1:{servers.stack.rabbitmq.port}, with" in out
    assert code_of_none == 1
    assert "127.0.0.1:1: " in report
    assert "127.0.0.1:2: " in report
    assert "hunter2" not in report


@pytest.mark.parametrize("role", ["ingress", "worker", "console"])
async def test_a_queue_with_other_arguments_is_a_clear_error_at_start(servers: Servers, role: str) -> None:
    name = "recordings.retry.0.3s"
    async with servers.queue("recordings") as queue:
        await queue.channel.queue_delete(name)  # another test may have left it
        other = await queue.channel.declare_queue(name, durable=True, arguments={"x-queue-type": "quorum", "x-message-ttl": 999})
        try:
            ports = {"CALLFOLD_INGRESS_PORT": "0", "CALLFOLD_CONSOLE_PORT": "0"}
            code, _, err = await callfold(role, **servers.environment(CALLFOLD_RECORDING_RETRY_SECONDS="0.3", **ports))
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
        code, out, _ = await callfold(
            "tail", "call.completed.*.answered", "--since", "1h", "--json", "--limit", "1", **servers.environment()
        )
    assert code == 0
    event = json.loads(out)
    assert event["type"] == "callfold.call.completed.v1"
    assert event["data"]["outcome"] == "answered"
    later = (datetime.fromisoformat(event["time"]) + timedelta(microseconds=1)).isoformat()
    for since, until, is_printed in (
        ("1h", "now", True),
        (None, "now", True),
        (event["time"], later, True),
        ("1h", event["time"], False),
        (None, "2h", False),
    ):
        span = [*(("--since", since) if since else ()), "--until", until]
        code, out, err = await callfold("tail", "call.completed.*.answered", *span, "--json", **servers.environment())
        printed = event["id"] in [
            json.loads(line)["id"] for line in out.splitlines() if json.loads(line)["time"] == event["time"]
        ]
        assert (code, printed, err) == (0, is_printed, ""), span
    code, _, err = await callfold("tail", "--since", "now", "--until", "2h", **servers.environment())
    assert (code, "--until is earlier than --since" in err) == (2, True)


async def test_the_example_consumer_handles_each_call_once(servers: Servers) -> None:
    port = free_port()
    async with servers.fleet() as fleet:
        fleet.add("ingress", "ingress", {"CALLFOLD_INGRESS_PORT": str(port)})
        fleet.add("worker", "worker", {})
        await fleet.start_all()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(ROOT / "docs" / "examples" / "consumer.py"),
            *("--limit", "4"),
            env=os.environ | {"AMQP_URL": servers.stack.amqp_url, "CONSUMER_DB": str(servers.directory / "seen.sqlite")},
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        assert b"waiting" in await asyncio.wait_for(process.stdout.readline(), LIMIT_S)
        await call_back(port, [*VENDOR_LINES, *VENDOR_LINES, *lines_of(514)])
        for call_id in (71, 72):  # the dial API did not start these
            await call_back(port, [f"CallType=Incoming&Event={event}&CallID={call_id}" for event in ("pickup", "hangup")])
        out, _ = await asyncio.wait_for(process.communicate(), LIMIT_S)
    assert process.returncode == 0
    handled = ["default/513/1", "default/514/1", "default/call-71/1", "default/call-72/1"]
    assert sorted(line.split()[0] for line in out.decode().splitlines()) == handled
    with closing(sqlite3.connect(servers.directory / "seen.sqlite")) as database:
        calls = database.execute("select call, revision from calls order by call").fetchall()
    assert calls == [("513", 1), ("514", 1), ("call-71", 1), ("call-72", 1)]
    async with servers.queue("example.calls") as queue:
        await queue.channel.queue_delete(queue.name)


async def test_the_example_consumer_says_in_a_sentence_why_it_cannot_start(tmp_path: Path) -> None:
    async with LocalStack(tmp_path / "stack", only=frozenset({"rabbitmq"})) as stack:
        for url, said in (
            ("amqp://guest:hunter2@127.0.0.1:1/", "RabbitMQ cannot be reached (AMQPConnectionError). Check AMQP_URL."),
            (stack.amqp_url.replace("guest:guest", "guest:hunter2"), "RabbitMQ refused the user or password of AMQP_URL."),
            (stack.amqp_url, "RabbitMQ has no exchange `calls`. Start a Callfold worker first."),
        ):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, str(ROOT / "docs" / "examples" / "consumer.py")),
                env=os.environ | {"AMQP_URL": url, "CONSUMER_DB": str(tmp_path / "seen.sqlite")},
                stderr=asyncio.subprocess.PIPE,
            )
            _, err = await asyncio.wait_for(process.communicate(), LIMIT_S)
            assert (process.returncode, err.decode()) == (1, f"{said}\n")


async def test_simulate_compares_what_was_published_with_the_truth(servers: Servers) -> None:
    port = free_port()
    # The time is well below the time that FocalScope waits for an answer.
    async with servers.fleet(CALLFOLD_PUBLISH_TIMEOUT_SECONDS="3") as fleet:
        fleet.add("ingress", "ingress", {"CALLFOLD_INGRESS_PORT": str(port)})
        fleet.add("worker", "worker", {})
        await fleet.start_all()
        # Without settings of its own the source is `default`, whose adapter has every placeholder.
        code, out, err = await callfold(
            "simulate",
            *("--calls", "10", "--rate", "20", "--json", "--ingress", f"http://127.0.0.1:{port}"),
            **servers.environment(),
        )
    assert code == 0, out + err
    told = json.loads(out)
    assert (told["calls"], told["differences"]) == (10, [])
    assert err == "No call is recorded: [sources.default] has neither recording_origin nor recording_url.\n"


async def test_the_demo_ends_well_and_leaves_its_archive_and_nothing_running(tmp_path: Path) -> None:
    code, out, err = await callfold("demo", "--calls", "30", "--directory", str(tmp_path / "demo"), COLUMNS="40")
    assert code == 0, out + err
    assert re.search(r"^30 simulated calls and the vendor's: every one was .* Nothing is left running\.$", out, re.MULTILINE)
    assert re.search(r"^dialed \d+/30 .* completed: none yet$", out, re.MULTILINE)
    assert "the vendor's callbacks carry no times" in out
    assert '"id": "default/513/1"' in out
    assert "every one was published exactly as it happened" in " ".join(out.split())
    assert len(list((tmp_path / "demo" / "archive").rglob("*.wav"))) >= 10
    assert (tmp_path / "demo" / "archive" / "default").is_dir()
    await ended(tmp_path)
    logs = "".join(log.read_text() for log in (tmp_path / "demo" / "logs").iterdir())
    secret = re.search(r'secret = "(.+)"', (tmp_path / "demo" / "sources.toml").read_text())
    assert secret is not None
    assert secret[1] not in logs + out
    assert SECTOK not in logs + out


async def test_the_demo_as_json_is_one_object_and_the_rest_is_elsewhere(tmp_path: Path) -> None:
    directory = tmp_path / "demo"
    code, out, err = await callfold("demo", "--calls", "3", "--seed", "7", "--json", "--directory", str(directory))
    assert code == 0, out + err
    told = json.loads(out)
    assert told | {"seconds": 0} == {
        "calls": 3,
        "seed": 7,
        "differences": [],
        "seconds": 0,
        "archive": str(directory / "archive"),
        "logs": str(directory / "logs"),
    }
    assert "are ready after" in err
    assert "default/513/1" in err


async def test_a_private_rabbitmq_that_crashes_as_it_starts_leaves_no_dump_of_its_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack_module, "node_environment", partial(node_environment, more_config=["no_such_setting = 1"]))
    monkeypatch.chdir(tmp_path)
    with pytest.RaisesGroup(ProcessFailedError):
        await LocalStack(tmp_path / "stack", only=frozenset({"rabbitmq"})).__aenter__()
    assert list(tmp_path.rglob("*.dump")) == []


async def test_kill_9_of_the_owner_takes_the_private_servers_down(tmp_path: Path) -> None:
    code = (
        "import asyncio, os, signal, sys\nfrom pathlib import Path\nfrom console.local.stack import LocalStack\n"
        "async def main():\n    async with LocalStack(Path(sys.argv[1])):\n        os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, str(tmp_path / "stack"), cwd=ROOT)
    assert await asyncio.wait_for(process.wait(), LIMIT_S) == -9
    await ended(tmp_path)
