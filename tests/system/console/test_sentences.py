"""What a command says to somebody who made a mistake, or whose servers are away: which one, and what to do."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from pathlib import Path

import pytest

from console.commands.hints import with_hint
from console.history.store import History
from shared.domain.adapter_link import SAMPLE_LINK, make_link, parse_link
from shared.domain.facts import facts_of
from shared.domain.ids import CallKey, CallRef, SourceName
from shared.domain.raw_event import CallbackEvent
from shared.errors import ConfigError, StoreUnavailableError
from shared.state.store import Store
from tests.helpers.console import acme
from tests.helpers.servers import VENDOR_LINES, Servers, callfold

SECRET = "hunter2"


DIAL_URL = 'dial_url = "http://127.0.0.1:1/?agent={agent}&number={number}"'


RESTARTED = "If `callfold up` was restarted, its servers have new ports"


async def test_a_wrong_password_is_told_as_one_and_never_shown(servers: Servers) -> None:
    amqp, redis = servers.stack.amqp_url.replace("guest:guest", f"guest:{SECRET}"), servers.stack.redis_url
    environment = servers.environment(CALLFOLD_AMQP_URL=amqp, CALLFOLD_REDIS_URL=redis.replace("//", f"//nobody:{SECRET}@"))
    nowhere = environment | {"CALLFOLD_AMQP_URL": servers.stack.amqp_url + "nowhere"}
    (code, out, err), tail, (_, elsewhere, _) = await asyncio.gather(
        callfold("doctor", "--json", **environment),
        callfold("tail", "--limit", "1", **environment),
        callfold("doctor", "--json", **nowhere),
    )
    findings = {finding["check"]: finding["detail"] for finding in map(json.loads, out.splitlines())}
    assert code == 1
    assert findings["rabbitmq"].startswith(f"RabbitMQ: 127.0.0.1:{servers.stack.rabbitmq.port}: refused the user or password.")
    assert findings["redis"].startswith("Redis refused the user or password. Check CALLFOLD_REDIS_URL.")
    assert SECRET not in out + err
    code, out, err = tail
    assert code == 1
    assert "callfold: RabbitMQ refused the user or password. Check CALLFOLD_AMQP_URL" in err
    assert SECRET not in out + err
    assert "refused the virtual host" in elsewhere


async def test_a_server_that_is_away_is_told_with_its_setting_and_what_a_restart_changes() -> None:
    code, _, err = await callfold("calls", CALLFOLD_REDIS_URL="redis://127.0.0.1:1/0")
    assert code == 1
    assert err.startswith("callfold: Redis failed (ConnectionError): ")
    assert f"Check CALLFOLD_REDIS_URL, or run `callfold doctor`. {RESTARTED}" in err
    assert with_hint(StoreUnavailableError("Redis is away"), in_doctor=True).startswith(
        "Redis is away. Check CALLFOLD_REDIS_URL. If"
    )
    assert with_hint(ConfigError("It cannot work.")) == "It cannot work."


UNKNOWN = "callfold: Unknown source nobody. Configured: acme. Check CALLFOLD_SOURCES."


@pytest.mark.parametrize(
    "arguments",
    [
        ("dial", "--source", "nobody", "--agent", "1001", "--number", "112"),
        ("adapter-link", "nobody", "--url", "https://hooks.example.com"),
        ("calls", "--source", "nobody"),
        ("calls", "--source", "nobody", "--json"),
        ("show", "nobody", "513"),
        ("simulate", "--source", "nobody"),
        ("hold", "nobody"),
        ("recordings", "get", "nobody", "513"),
        ("recordings", "verify", "--source", "nobody"),
        ("rebuild", "--since", "1h", "--source", "nobody"),
    ],
)
async def test_an_unknown_source_is_one_sentence_everywhere(servers: Servers, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    code, out, err = await callfold(*arguments, **servers.environment(CALLFOLD_SOURCES=acme(tmp_path)))
    assert (code, out, err) == (2, "", f"{UNKNOWN}\n")


async def test_what_is_kept_of_a_source_that_was_is_listed_and_said_to_be_of_it(servers: Servers, tmp_path: Path) -> None:
    environment = servers.environment(CALLFOLD_SOURCES=acme(tmp_path))
    history = {"CALLFOLD_HISTORY_URL": f"sqlite:///{tmp_path / 'history.sqlite'}"}
    code, _, err = await callfold("dead-letters", "list", "--source", "nobody", **environment)
    assert (code, err.splitlines()[0].startswith(UNKNOWN)) == (0, True)
    async with aclosing(History(history["CALLFOLD_HISTORY_URL"], is_writer=True)) as created:
        await created.prepare()
    code, _, err = await callfold("calls", "--source", "nobody", **environment, **history)
    assert (code, err.splitlines()[0].startswith(UNKNOWN)) == (0, True)
    assert err.splitlines()[-1] == "0 calls"
    async with aclosing(Store(environment["CALLFOLD_REDIS_URL"])) as store:
        key = CallKey(SourceName("nobody"), CallRef("513"))
        event = CallbackEvent(key.source, "2026-11-23T07:44:00.000000Z", VENDOR_LINES[0])
        await store.merge({key: [facts_of(event, parse_link(SAMPLE_LINK))[1]]})
    code, out, err = await callfold("calls", "--source", "nobody", **environment)
    assert (code, "nobody/513" in out, err.startswith(UNKNOWN)) == (0, True, True)


@pytest.mark.parametrize(
    ("lines", "dial", "told"),
    [
        ((), {}, (1, "Set it under [sources.acme] in the CALLFOLD_SOURCES file.")),
        ((DIAL_URL,), {"number": "1 12"}, (1, r"The number does not match number_pattern of [sources.acme]: \+?[0-9*#]{1,32}")),
        (
            (DIAL_URL, "agent_pattern = '[0-9]{4}'"),
            {"agent": "10 01"},
            (1, "The agent does not match agent_pattern of [sources.acme]: [0-9]{4}"),
        ),
        ((), {"number": ""}, (2, "callfold: number must not be empty.")),
        ((), {"queue-prefix": "9x"}, (2, "callfold: queue_prefix must match ^[0-9*#]{1,8}$.")),
    ],
)
async def test_what_cannot_be_dialed_is_told_with_the_key_to_change(
    servers: Servers, tmp_path: Path, lines: tuple[str, ...], dial: dict[str, str], told: tuple[int, str]
) -> None:
    asked = {"source": "acme", "agent": "1001", "number": "112"} | dial
    options = [text for name, value in asked.items() for text in (f"--{name}", value)]
    code, _, err = await callfold("dial", *options, **servers.environment(CALLFOLD_SOURCES=acme(tmp_path, *lines)))
    assert (code, told[1] in err) == (told[0], True), err


async def test_an_id_that_no_dead_letter_has_is_told_with_where_to_look(servers: Servers) -> None:
    for arguments in (("show", "zzz"), ("redrive", "zzz", "--queue", "recordings"), ("drop", "zzz", "--yes")):
        queue = "recordings" if "recordings" in arguments else "callbacks"
        code, _, err = await callfold("dead-letters", *arguments, **servers.environment())
        assert code == 1
        assert err.splitlines()[-1] == (
            f"callfold: No dead letter in {queue}.dead has an id that begins with zzz. "
            f"`callfold dead-letters list --queue {queue}` lists them."
        )
    code, out, _ = await callfold("dead-letters", "show", "--help")
    assert (code, "every message that matches" in out) == (0, False)
    assert (await callfold("dead-letters", "show", **servers.environment()))[0] == 2


async def test_retention_takes_its_age_from_the_settings_or_asks_for_it(servers: Servers) -> None:
    code, _, err = await callfold("retention", "--dry-run", **servers.environment())
    assert (code, err) == (2, "callfold: No minimum age given. Use --older-than, e.g. 365d, or set CALLFOLD_RETENTION_DAYS.\n")
    environment = servers.environment(CALLFOLD_RETENTION_DAYS="30")
    code, out, err = await callfold("retention", "--dry-run", **environment)
    assert (code, out) == (0, "0 recordings (0 bytes) would be deleted; 0 kept on hold\n"), err
    code, _, err = await callfold("retention", "--dry-run", "--older-than", "soon", **environment)
    assert (code, "'soon' is not a duration" in err) == (2, True)


async def test_nothing_is_folded_in_a_pipe(servers: Servers) -> None:
    code, out, err = await callfold("doctor", **servers.environment(), COLUMNS="40")
    assert code == 0, out + err
    found = {line.split("  ")[0].strip(): line.rstrip() for line in out.splitlines()}
    assert found["rabbitmq"].endswith("at-least-once dead-lettering (no plugin needed)")
    assert found["spool"].endswith("is writable; 0 messages spooled")


async def test_show_stands_in_columns_however_long_its_names_are(servers: Servers) -> None:
    query = "CallType=Outgoing&Event=pickup&CallID=100000000000087850&RequestID=513&ResponderAgentExt=1001"
    event = CallbackEvent(SourceName("default"), "2026-11-23T07:44:00.000000Z", query)
    async with aclosing(Store(servers.environment()["CALLFOLD_REDIS_URL"])) as store:
        key, merged = facts_of(event, parse_link(make_link("http://h", "default", None)))
        await store.merge({key: [merged]})
    code, out, err = await callfold("show", "default", "513", **servers.environment())
    assert code == 0, err
    facts = [line.split() for line in out.partition("\nfacts\n")[2].splitlines()]
    longest = "leg:Outgoing:100000000000087850:f.pickup.ResponderAgentExt"
    assert longest in dict(facts)
    assert out.endswith("".join(f"  {name:<{len(longest)}}  {value}\n" for name, value in facts))
