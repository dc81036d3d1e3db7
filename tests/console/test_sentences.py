"""What a command says to somebody who made a mistake, or whose servers are away: which one, and what to do."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from console import doctor, reach
from console.advice import advised
from console.fleet import free_port
from shared.errors import ConfigError, StoreUnavailableError
from shared.settings import load_settings
from tests.support import Servers, callfold

SECRET = "hunter2"
RESTARTED = "Was `callfold up` started again? Its servers have new ports"


def _sources(directory: Path, *lines: str) -> str:
    path = directory / "sources.toml"
    path.write_text("\n".join(("[sources.acme]", *lines)) + "\n")
    return str(path)


async def _found(monkeypatch: pytest.MonkeyPatch, sources: str, check: str) -> doctor.Finding:
    monkeypatch.setenv("CALLFOLD_SOURCES", sources)
    return await doctor.find(check, doctor.CHECKS[check], load_settings())


@pytest.mark.parametrize(
    ("check", "line"),
    [
        ("recording origins", 'recording_origin = "http://{host}"'),
        ("dial links", 'dial_url = "http://user:hunter2@{host}/dial?agent={{agent}}&key=hunter2"'),
    ],
)
async def test_doctor_warns_of_a_pbx_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: str, line: str
) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    finding = await _found(monkeypatch, _sources(tmp_path, line.format(host=nobody)), check)
    assert (finding.ok, finding.warning) == (True, True)
    assert finding.detail == f"source acme: {nobody} does not answer: the connection is refused"

    finding = await _found(monkeypatch, _sources(tmp_path, line.format(host="pbx.invalid")), check)
    assert (finding.ok, finding.warning) == (True, True)
    assert finding.detail.startswith("source acme: pbx.invalid does not resolve: ")

    with socket.create_server(("127.0.0.1", 0)) as pbx:
        finding = await _found(monkeypatch, _sources(tmp_path, line.format(host=f"127.0.0.1:{pbx.getsockname()[1]}")), check)
    assert finding == doctor.Finding(check, ok=True, detail="127.0.0.1 at 127.0.0.1")


async def test_doctor_says_which_network_a_pbx_with_a_private_address_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def look_up(_host: str) -> list[str]:
        return ["10.1.2.3"]

    connected: list[object] = []

    async def connect(addresses: list[str], port: int) -> None:
        connected.append((addresses, port))

    monkeypatch.setattr(reach, "look_up", look_up)
    monkeypatch.setattr(reach, "connect", connect)
    line = 'recording_origin = "https://pbx.example.com"'
    finding = await _found(monkeypatch, _sources(tmp_path, line), "recording origins")
    assert not finding.ok
    assert 'recording_networks = ["10.1.2.3"] to [sources.acme]' in finding.detail
    assert connected == []
    sources = _sources(tmp_path, line, 'recording_networks = ["10.1.2.0/24"]')
    finding = await _found(monkeypatch, sources, "recording origins")
    assert finding.detail == "pbx.example.com at 10.1.2.3"
    assert connected == [(["10.1.2.3"], 443)]


async def test_a_wrong_password_is_told_as_one_and_never_shown(servers: Servers) -> None:
    amqp, redis = servers.stack.amqp_url.replace("guest:guest", f"guest:{SECRET}"), servers.stack.redis_url
    environment = servers.environment(CALLFOLD_AMQP_URL=amqp, CALLFOLD_REDIS_URL=redis.replace("//", f"//nobody:{SECRET}@"))
    code, out, err = await callfold("doctor", "--json", **environment)
    findings = {finding["check"]: finding["detail"] for finding in map(json.loads, out.splitlines())}
    assert code == 1
    assert findings["rabbitmq"].startswith(f"RabbitMQ: 127.0.0.1:{servers.stack.rabbitmq.port}: refused the user or password.")
    assert findings["redis"].startswith("Redis refused the user or password. See CALLFOLD_REDIS_URL.")
    assert SECRET not in out + err
    code, out, err = await callfold("tail", "--limit", "1", **environment)
    assert code == 1
    assert "callfold: RabbitMQ refused the user or password: see CALLFOLD_AMQP_URL" in err
    assert SECRET not in out + err
    environment |= {"CALLFOLD_AMQP_URL": servers.stack.amqp_url + "nowhere"}
    code, out, err = await callfold("doctor", "--json", **environment)
    assert "refused the virtual host" in out


async def test_a_server_that_is_away_is_told_with_its_setting_and_what_a_restart_changes() -> None:
    code, _, err = await callfold("calls", CALLFOLD_REDIS_URL="redis://127.0.0.1:1/0")
    assert code == 1
    assert err.startswith("callfold: Redis: ConnectionError: ")
    assert f"See CALLFOLD_REDIS_URL, or run `callfold doctor`. {RESTARTED}" in err
    assert advised(StoreUnavailableError("Redis is away"), in_doctor=True).startswith(
        "Redis is away. See CALLFOLD_REDIS_URL. Was"
    )
    assert advised(ConfigError("It cannot work.")) == "It cannot work."
