"""What doctor and the console say, in sentences."""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from console.call_query import CallQuery
from console.commands import doctor, pbx_checks
from console.commands.show import wrapped
from console.counts import counted
from console.dialing.focalscope import DialRequest
from console.local.ports import free_port
from console.validation import first_mistake
from console.web.dead_letters_api import DeadLettersAction
from console.web.models import EventsQuery
from shared.amqp.connection import BrokerAddress
from shared.amqp.server_check import check_server, find_unusable
from shared.amqp.topology import Topology
from shared.config.settings import load_settings
from shared.domain.leg_event import CallType
from shared.errors import BrokerUnavailableError
from tests.helpers.certificates import Authority
from tests.helpers.console import acme
from tests.helpers.pace import LIMIT_S
from tests.helpers.scripted_http import scripted


async def _found(monkeypatch: pytest.MonkeyPatch, sources: str, check: str) -> doctor.Finding:
    monkeypatch.setenv("CALLFOLD_SOURCES", sources)
    return await doctor.run_check(check, doctor.CHECKS[check], load_settings())


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
    finding = await _found(monkeypatch, acme(tmp_path, line.format(host=nobody)), check)
    assert (finding.ok, finding.warning) == (True, True)
    assert finding.detail == f"{nobody} of source acme does not answer: connection refused"

    finding = await _found(monkeypatch, acme(tmp_path, line.format(host="pbx.invalid")), check)
    assert (finding.ok, finding.warning) == (True, True)
    assert finding.detail.startswith("pbx.invalid of source acme does not resolve: ")

    with socket.create_server(("127.0.0.1", 0)) as pbx:
        finding = await _found(monkeypatch, acme(tmp_path, line.format(host=f"127.0.0.1:{pbx.getsockname()[1]}")), check)
    assert finding == doctor.Finding(check, ok=True, detail="127.0.0.1 at 127.0.0.1")


async def test_doctor_names_an_adapter_link_that_sends_to_another_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = "https://h/callbacks/{}?a={{{{CallTypeName}}}}&b={{{{DialApiEventName}}}}&c={{{{CallID}}}}"
    finding = await _found(monkeypatch, acme(tmp_path, f'adapter = "{link.format("other")}"'), "sources")
    assert (finding.ok, finding.warning) == (True, True)
    assert finding.detail.startswith("The adapter link of acme sends to other. ")
    for adapter in (f'adapter = "{link.format("acme")}"', f'adapter = "{link.format("acme/")}"', ""):
        assert not (await _found(monkeypatch, acme(tmp_path, adapter), "sources")).warning


async def test_doctor_says_once_what_is_wrong_with_the_sources_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = acme(tmp_path, "secret = 1")
    checks = ("sources", "secrets", "recording origins", "dial links")
    findings = doctor.without_repeats([await _found(monkeypatch, broken, check) for check in checks])
    assert [finding.ok for finding in findings] == [False] * 4
    assert [finding.detail for finding in findings][1:] == ["not checked: see sources"] * 3


_STRONG = "8c1f0e52ab34d6790011223344556677"


@pytest.mark.parametrize(
    ("environment", "secret", "ok", "warning", "said"),
    [
        ({}, "x", True, True, "The secret of source acme has 1 character, and 12 are the minimum beyond loopback."),
        ({"CONSOLE_KEY": "y"}, _STRONG, True, True, "CALLFOLD_CONSOLE_KEY has 1 character,"),
        ({"INGRESS_HOST": "10.0.0.1"}, "x", False, False, "The secret of source acme has 1 character,"),
        ({"INGRESS_HOST": "10.0.0.1"}, None, False, False, "Source acme has no secret, so ingress cannot listen on 10.0.0.1."),
        ({"CONSOLE_HOST": "::"}, _STRONG, False, False, "CALLFOLD_CONSOLE_KEY is not set."),
        ({"INGRESS_HOST": "10.0.0.1", "CONSOLE_KEY": _STRONG}, _STRONG, True, False, "none is weak"),
        ({}, None, True, False, "none is weak (not set, so on loopback only: acme)"),
    ],
)
async def test_doctor_names_the_secrets_that_are_easy_to_guess(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    secret: str | None,
    *,
    ok: bool,
    warning: bool,
    said: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(f"CALLFOLD_{name}", value)
    sources = tmp_path / "sources.toml"
    sources.write_text("[sources.acme]\n" + (f'secret = "{secret}"\n' if secret else ""))
    finding = await _found(monkeypatch, str(sources), "secrets")
    assert (finding.ok, finding.warning) == (ok, warning)
    assert finding.detail.startswith(said)
    assert _STRONG not in finding.detail


async def test_doctor_says_which_network_a_pbx_with_a_private_address_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def resolve(_host: str) -> list[str]:
        return ["10.1.2.3"]

    connected: list[object] = []

    async def handshake(addresses: list[str], port: int, _host: str) -> int:
        connected.append((addresses, port))
        return 90

    monkeypatch.setattr(pbx_checks, "resolve", resolve)
    monkeypatch.setattr(pbx_checks, "handshake", handshake)
    line = 'recording_origin = "https://pbx.example.com"'
    finding = await _found(monkeypatch, acme(tmp_path, line), "recording origins")
    assert not finding.ok
    assert 'recording_networks = ["10.1.2.3"] to [sources.acme]' in finding.detail
    assert connected == []
    sources = acme(tmp_path, line, 'recording_networks = ["10.1.2.0/24"]')
    finding = await _found(monkeypatch, sources, "recording origins")
    assert finding.detail == "pbx.example.com at 10.1.2.3, certificate valid for 90 days"
    assert connected == [(["10.1.2.3"], 443)]


@pytest.mark.parametrize(
    ("days", "host", "is_ok", "words"),
    [
        (90.5, "127.0.0.1", True, "127.0.0.1 at 127.0.0.1, certificate valid for 90 days"),
        (9.5, "127.0.0.1", True, "the certificate of 127.0.0.1:{port} of source acme expires in 9 days"),
        (
            -0.5,
            "127.0.0.1",
            False,
            "Source acme, 127.0.0.1:{port}: the server's certificate, or that of its issuer, has expired.",
        ),
        (90.5, "pbx.example.com", False, "the server's certificate is for another host."),
        (None, "127.0.0.1", False, "SSL_CERT_FILE"),
    ],
)
@pytest.mark.parametrize("check", ["recording origins", "dial links"])
async def test_doctor_names_what_is_wrong_with_a_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: str, days: float | None, host: str, *, is_ok: bool, words: str
) -> None:
    ours, other = Authority(tmp_path), Authority(tmp_path, "other")
    monkeypatch.setenv("SSL_CERT_FILE", str(ours.path))
    context = other.server(host) if days is None else ours.server(host, days=(-9, days))
    async with scripted(tls=context) as server:
        key = "recording_origin" if check == "recording origins" else "dial_url"
        finding = await _found(monkeypatch, acme(tmp_path, f'{key} = "{server.origin}"'), check)
        assert (finding.ok, words.format(port=server.port) in finding.detail) == (is_ok, True), finding
        assert server.asked == []


OUTCOMES = "answered, dialed_missed, agent_missed, agent_hung_up, missed, unknown"


@pytest.mark.parametrize(
    ("model", "given", "said"),
    [
        (CallQuery, {"outcome": "answerd"}, f"outcome must be one of {OUTCOMES}. Did you mean answered?"),
        (CallQuery, {"outcome": "x"}, f"outcome must be one of {OUTCOMES}."),
        (CallQuery, {"outcom": "answered"}, "outcom is unknown. Did you mean outcome?"),
        (CallQuery, {"colour": "red"}, "colour is unknown. Expected one of state, outcome, type, source, agent, number, "),
        (CallQuery, {"type": "logn"}, f"type must be one of {', '.join(CallType)}. Did you mean Login?"),
        (CallQuery, {"state": "tlking"}, "state must be one of open, ringing, talking, ending, complete. Did you mean talking?"),
        (CallQuery, {"limit": "ten"}, "limit must be a whole number."),
        (CallQuery, {"limit": 0}, "limit must be at least 1."),
        (CallQuery, {"limit": 501}, "limit must be at most 500."),
        (CallQuery, {"recorded": "maybe"}, "recorded must be true or false."),
        (CallQuery, {"source": ""}, "source must not be empty."),
        (CallQuery, {"source": ["a", "b"]}, "source must be a single value."),
        (CallQuery, {"outcome": ["missed", "answered"]}, "outcome must be a single value."),
        (CallQuery, {"agent": "1" * 257}, "agent must have at most 256 characters."),
        (CallQuery, {"since": "soon"}, "since is not a time. Expected RFC 3339"),
        (DialRequest, {"source": "a", "agent": "1", "numbr": "1"}, "numbr is unknown. Did you mean number?"),
        (DialRequest, {"source": "a", "agent": "1"}, "number is missing."),
        (
            DialRequest,
            {"source": "a", "agent": "1", "number": "1", "numbr": "1"},
            "numbr is unknown. Did you mean number?",
        ),
        (DialRequest, {"source": "a", "agent": "1", "number": 112}, "number must be text."),
        (DialRequest, {"source": "a", "agent": "1", "number": "1", "metadata": "x"}, "metadata must be an object of names"),
        (DialRequest, [], "The request must be a JSON object."),
        (DeadLettersAction, {"action": "drp", "ids": ["abcd"]}, "action must be one of redrive, drop. Did you mean drop?"),
        (DeadLettersAction, {"action": "drop", "ids": []}, "ids must not be empty."),
        (DeadLettersAction, {"action": "drop", "ids": ["abc"]}, "ids.0 must have at least 4 characters."),
        (EventsQuery, {"after": -1}, "after must be at least 0."),
    ],
)
def test_a_wrong_request_is_told_in_our_words(model: type[BaseModel], given: object, said: str) -> None:
    with pytest.raises(ValidationError) as wrong:
        model.model_validate(given)
    sentence = first_mistake(wrong.value, model)[1]
    assert sentence.startswith(said)
    with pytest.raises(ValidationError) as wrong:
        model.model_validate_json(json.dumps(given))
    assert "Input" not in first_mistake(wrong.value, model)[1]


def test_a_body_that_is_no_json_is_told_so() -> None:
    with pytest.raises(ValidationError) as wrong:
        DialRequest.model_validate_json("{hunter2")
    assert first_mistake(wrong.value, DialRequest) == ("request", "The request is not valid JSON.")


def test_things_are_counted_as_people_say_it() -> None:
    assert [counted(number, "call") for number in (0, 1, 2)] == ["0 calls", "1 call", "2 calls"]


def test_a_long_query_is_folded_between_its_parameters_and_nothing_of_it_is_lost() -> None:
    query = "&".join(f"Parameter{number}={'x' * number}" for number in range(40)) + "&Long=" + "y" * 300
    lines = wrapped(query)
    assert "".join(lines) == query
    assert all(len(line) <= 100 for line in lines[:-1])
    assert wrapped("") == [""]
    assert wrapped("CallID=1") == ["CallID=1"]


async def test_a_rabbitmq_that_does_not_answer_is_named_with_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.amqp.plain_connection.CONNECT_TIMEOUT_S", 0.2)
    monkeypatch.setattr("shared.amqp.server_check.CONNECT_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        address = BrokerAddress((f"amqp://guest:guest@127.0.0.1:{port}/",), Topology(), "tests")
        with pytest.raises(BrokerUnavailableError, match=rf"^RabbitMQ: 127\.0\.0\.1:{port}: no answer within 0\.2 s$"):
            await check_server(address)


async def test_servers_of_rabbitmq_that_do_not_answer_are_named_and_none_waits_for_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shared.amqp.plain_connection.CONNECT_TIMEOUT_S", LIMIT_S)
    monkeypatch.setattr("shared.amqp.server_check.CONNECT_TIMEOUT_S", 0.2)
    with ExitStack() as stack:
        silent = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        ports = [server.getsockname()[1] for server in silent]
        urls = {f"amqp://guest:hunter2@127.0.0.1:{port}/": f"127.0.0.1:{port}: no answer within 0.2 s" for port in ports}
        assert await find_unusable([*urls]) == urls
