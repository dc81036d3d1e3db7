"""What is done on the command line and by a worker of itself is an audit line in a real history, also where it is cut off."""

from __future__ import annotations

import signal
from typing import Any

from shared.clock import utc_now
from tests.helpers.console import DialEndpoint
from tests.helpers.dead_letters import bury, left
from tests.helpers.pace import paced
from tests.helpers.recording_site import OLD, Site, audited
from tests.helpers.recordings import GUID, Pbx
from tests.helpers.servers import Servers, callfold, eventually, next_events
from tests.helpers.shared_machine import AWAY


def _stages(lines: list[Any]) -> list[str]:
    assert len({line.detail["run"] for line in lines}) == 1, "one run"
    return [line.detail["stage"] for line in lines]


async def test_the_daily_retention_of_a_worker_is_told_before_it_begins_and_how_it_ended(servers: Servers, pbx: Pbx) -> None:
    site = Site(servers, pbx, "dailytold")
    await site.stored(site.job(started_at=OLD))
    since = utc_now()
    site.settings |= {"CALLFOLD_RETENTION_DAYS": "30"}
    async with servers.subscribed("recording.expired.#") as queue, site.working():
        (event,) = await next_events(queue, 1)
        begun, ended = await audited(servers, 2, since=since, who="worker:retention")
    assert event.message_id == f"dailytold/513/recording/{GUID}/expired"
    assert _stages([begun, ended]) == ["begun", "ended"]
    assert (begun.action, begun.source) == ("deletion", None)
    assert begun.at < event.body["time"], "told first"
    assert begun.detail["wanted"] == {"older_than": "30d", "with_records": False}
    assert ended.detail["deleted"] == {"recordings": 1, "records": 0, "problems": 0}


async def test_redrives_and_drops_are_told_before_they_begin_and_how_they_ended(servers: Servers) -> None:
    settings = servers.environment()
    for source, action, arguments in (("auditredrive", "redrive", ()), ("auditdrop", "drop", ("--yes",))):
        for number in range(2):
            await bury(servers, source, f"a={number}", "unknown_source", first_seen=utc_now())
        code, _, err = await callfold("dead-letters", action, "--source", source, "--dry-run", **settings)
        assert code == 0, err
        code, _, err = await callfold("dead-letters", action, "--source", source, *arguments, **settings)
        assert code == 0, err
        begun, ended = await audited(servers, 2, action=action, source=source)
        assert _stages([begun, ended]) == ["begun", "ended"]
        assert begun.who.startswith("cli:")
        assert (begun.detail["found"], begun.detail["wanted"]["queue"]) == (2, "callbacks")
        assert ("letters" in begun.detail, ended.detail["letters"]) == (False, 2)


async def test_a_redrive_and_a_drop_that_are_killed_have_left_a_line(servers: Servers) -> None:
    settings = servers.environment(CALLFOLD_CRASH_AT="letters.before_ack")
    for source, action, arguments in (("killedredrive", "redrive", ()), ("killeddrop", "drop", ("--yes",))):
        await bury(servers, source, "a=1", "unknown_source", first_seen=utc_now())
        code, _, _ = await callfold("dead-letters", action, "--source", source, *arguments, **settings)
        assert code == -signal.SIGKILL
        (begun,) = await audited(servers, 1, action=action, source=source)
        assert (begun.detail["stage"], begun.detail["found"]) == ("begun", 1)

    async def both_back() -> bool:
        return await left(servers) == 2

    await eventually(both_back)


async def test_holds_and_releases_are_told(servers: Servers, pbx: Pbx) -> None:
    site = Site(servers, pbx, "holdtold")
    assert (await site.callfold("hold", "holdtold", "513", "--ahead", "--reason", "court"))[0] == 0
    assert (await site.callfold("hold", "holdtold", "513", "--release"))[0] == 0
    (held,) = await audited(servers, 1, action="hold", source="holdtold")
    (released,) = await audited(servers, 1, action="release", source="holdtold")
    assert (held.call, held.detail) == ("513", {"reason": "court"})
    assert (released.call, released.detail) == ("513", {"was_held": True})
    assert held.who.startswith("cli:")
    assert released.who == held.who


async def test_nothing_is_released_untold_and_a_hold_is_placed_all_the_same(servers: Servers, pbx: Pbx) -> None:
    site = Site(servers, pbx, "holdaway")
    patient = site.settings
    site.settings = patient | AWAY | {"CALLFOLD_PUBLISH_TIMEOUT_SECONDS": paced(1)}
    await servers.stack.rabbitmq.kill()
    try:
        assert (await site.callfold("hold", "holdaway", "513", "--ahead", "--reason", "court"))[0] == 0
        code, _, err = await site.callfold("hold", "holdaway", "513", "--release")
        assert (code, "No hold was released" in err) == (1, True)
        _, out, _ = await site.callfold("hold", "holdaway")
        assert "holdaway/513" in out
    finally:
        await servers.stack.rabbitmq.start()
        site.settings = patient

    async def is_released() -> bool:
        """The stream of the audit comes back a while after RabbitMQ answers again."""
        return (await site.callfold("hold", "holdaway", "513", "--release"))[0] == 0

    await eventually(is_released)


async def test_downloads_are_told(servers: Servers, pbx: Pbx) -> None:
    site = Site(servers, pbx, "loadtold")
    await site.stored(site.job())
    code, _, err = await site.callfold("recordings", "get", "loadtold", "513", "-o", str(servers.directory / "got.wav"))
    assert code == 0, err
    (line,) = await audited(servers, 1, action="download", source="loadtold")
    assert (line.call, line.detail) == ("513", {"recording": GUID})


async def test_dials_are_told_with_their_number_masked(servers: Servers) -> None:
    dialing = DialEndpoint()
    path = servers.directory / "sources.toml"
    link = f"http://127.0.0.1:{dialing.port}/dial?agent={{agent}}&number={{number}}"
    path.write_text(f'[sources.dialtold]\ndial_url = "{link}"\n', encoding="utf-8")
    arguments = ("dial", "--source", "dialtold", "--agent", "1001", "--number", "+4512345678")
    async with dialing.running():
        code, out, err = await callfold(*arguments, **servers.environment(CALLFOLD_SOURCES=str(path)))
    assert code == 0, err
    (line,) = await audited(servers, 1, action="dial", source="dialtold")
    assert (line.call, line.detail["status"], line.detail["agent"]) == (out.strip(), 201, "1001")
    assert "345678" not in str(line)
