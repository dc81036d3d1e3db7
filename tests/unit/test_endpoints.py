"""The endpoints file, and the messages of the stream with changes."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from shared.config.endpoint_options import Order
from shared.config.endpoints import Endpoint, EndpointsFile, Options, parse_endpoint, parse_endpoints
from shared.errors import ConfigError
from shared.webhooks.attempts import AttemptRecord, Result, shown_answer
from shared.webhooks.endpoint_changes import DisabledMark, ManagedEndpoints, encode_disabled
from shared.webhooks.signing import new_secret, signed_headers, webhook_id

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYqrTwjU"
URL = "https://crm.example.com/hooks/calls?token=hidden-token"
PATH = Path("endpoints.toml")


def _parse(text: str) -> Endpoint:
    (endpoint,) = parse_endpoints(PATH, text).values()
    return endpoint


def _file(**keys: object) -> str:
    lines = "\n".join(f"{key} = {value}" for key, value in {"url": f'"{URL}"', "secret": f'"{SECRET}"', **keys}.items())
    return f"[endpoints.crm]\n{lines}\n"


def test_an_endpoint_has_all_that_the_file_gives(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CRM_SECRET", SECRET)
    (tmp_path / "auth").write_text("Bearer abc\n", "utf-8")
    endpoint = _parse(
        _file(
            secret='"env:CRM_SECRET"',
            filter='["call.completed.#", "recording.stored.*"]',
            headers=f'{{Authorization = "file:{tmp_path / "auth"}"}}',
            networks='["10.0.0.0/8"]',
            order='"call"',
            timeout_s="2.5",
        )
    )
    assert endpoint.secrets == (SECRET,)
    assert endpoint.filters == ("call.completed.#", "recording.stored.*")
    assert endpoint.headers["Authorization"].get_secret_value() == "Bearer abc"
    assert (endpoint.order, endpoint.enabled, endpoint.max_in_flight, endpoint.timeout_s) == (Order.CALL, True, 8, 2.5)
    assert endpoint.shown_url == "https://crm.example.com"
    assert "hidden-token" not in repr(endpoint)
    assert SECRET not in repr(endpoint)
    assert parse_endpoints(PATH, "") == {}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (_file(secret='"hidden-token"'), "secret"),
        (_file(secret='"whsec_aGlkZGVuLXRva2Vu"'), "secret"),
        (_file(previous_secrets=f'["{SECRET}"]'), "previous_secrets"),
        (_file(url='"http://crm.example.com/hidden-token"'), "url"),
        (_file(url='"https://user:hidden-token@crm.example.com/"'), "url"),
        (_file(url='"ftp://crm.example.com/hidden-token"'), "url"),
        (_file(filter='"call..x"'), "filter"),
        (_file(filter="[]"), "filter"),
        (_file(headers='{"Webhook-Id" = "hidden-token"}'), "headers"),
        (_file(headers='{A = "hidden-token\\nB: c"}'), "headers"),
        (_file(networks='["hidden-token"]'), "networks"),
        (_file(order='"strict"'), "order"),
        (_file(timeout_s="0"), "timeout_s"),
        (_file(max_in_flight="101"), "max_in_flight"),
        (_file(urls='"hidden-token"'), "urls"),
        (_file(secret='"env:NOT_SET_ANYWHERE"'), "secret"),
        ("[endpoints.CRM]\nurl = 'hidden-token'\n", "CRM"),
        ("[endpoints.dead]\nurl = 'hidden-token'\n", "dead"),
        ("[endpoint.crm]\nurl = 'hidden-token'\n", "endpoint"),
    ],
)
def test_a_fault_names_the_key_and_never_shows_what_is_secret(text: str, named: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_endpoints(PATH, text)
    assert named in str(raised.value)
    assert "hidden-token" not in str(raised.value)
    assert SECRET not in str(raised.value)


def test_an_endpoint_of_the_api_reads_no_variables_and_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRM_SECRET", "hidden-token")
    table = {"url": URL, "secret": SECRET, "headers": {"X-Key": "env:CRM_SECRET"}}
    assert parse_endpoint("crm", table).headers["X-Key"].get_secret_value() == "env:CRM_SECRET"


def test_a_plain_url_is_for_private_literal_addresses_and_listed_networks() -> None:
    for url, more in (("http://10.1.2.3:8080/x", {}), ("http://crm.internal/x", {"networks": ["10.0.0.0/8"]})):
        assert parse_endpoint("crm", {"url": url, "secret": SECRET, **more}).shown_url.startswith("http://")
    with pytest.raises(ConfigError, match="https"):
        parse_endpoint("crm", {"url": "http://203.0.113.9.example/x", "secret": SECRET})


def test_every_key_of_an_endpoint_is_documented() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "webhooks.md").read_text("utf-8")
    table = page.partition("| key | default | meaning |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == set(Options.model_fields)


def test_the_file_is_read_again_after_a_change_and_a_fault_keeps_what_it_was(tmp_path: Path) -> None:
    path = tmp_path / "endpoints.toml"
    path.write_text(_file(), "utf-8")
    file = EndpointsFile(path)
    assert file.read().keys() == {"crm"}
    assert file.poll(at_once=True) is None
    path.write_text("[endpoints.crm]\n", "utf-8")
    with pytest.raises(ConfigError):
        file.poll(at_once=True)
    path.write_text(_file() + _file().replace("crm]", "erp]"), "utf-8")
    changed = file.poll(at_once=True)
    assert changed is not None
    assert changed.keys() == {"crm", "erp"}


def test_the_state_of_the_stream_is_the_last_complete_one_with_the_marks_after_it() -> None:
    table = {"url": URL, "secret": SECRET}
    mark = DisabledMark("2026-11-30T12:00:00Z", "answered 410", "d" * 64)
    state = ManagedEndpoints().after(ManagedEndpoints(4, {"crm": table}).encode()).after(encode_disabled("crm", mark))
    assert (state.revision, state.tables, state.disabled) == (4, {"crm": table}, {"crm": mark})
    assert ManagedEndpoints().after(state.encode()) == state
    assert state.after(ManagedEndpoints(5, {"crm": table}).encode()).disabled == {}
    for wrong in (b"[]", b"{}", b'{"v":1,"kind":"disabled","name":"crm","mark":{}}', b"no json"):
        with pytest.raises(ValueError, match=r"."):
            state.after(wrong)


def test_both_secrets_sign_while_one_is_rotated_and_the_library_accepts_either() -> None:
    old, new, body = new_secret(), new_secret(), '{"id":"acme/513.2/1","name":"Bjørn"}'
    headers = dict(signed_headers([new, old], webhook_id("acme/513.2/1"), body, datetime.now(UTC)))
    assert "." not in headers["webhook-id"]
    assert headers["webhook-id"] == webhook_id("acme/513.2/1") != webhook_id("acme/513.2/2")
    for secret in (old, new):
        assert Webhook(secret).verify(body.encode(), headers)["name"] == "Bjørn"
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(new).verify(body + " ", headers)


def test_an_answer_that_repeats_the_request_shows_no_credential_of_the_endpoint() -> None:
    endpoint = parse_endpoint(
        "crm",
        {
            "url": "https://x.example/hooks/T0123456789ABCDEF/in?k=v",
            "secret": SECRET,
            "headers": {"X-Shop": "blue-whale", "Authorization": "Bearer abcdef012345"},
        },
    )
    answer = f"No /hooks/T0123456789ABCDEF/in?k=v. T0123456789ABCDEF, blue-whale; abcdef012345 {SECRET} and blue-wh"
    assert shown_answer(answer.encode(), endpoint.credentials) == "No /***. ***, ***; *** *** and ***"
    assert shown_answer("a\x9b31mb\u202ec\x00d".encode()) == "a 31mb c d"


def test_an_attempt_is_read_as_it_was_written_and_its_answer_is_masked_and_short() -> None:
    record = AttemptRecord(
        "crm", "acme/513/1", "callfold.call.completed.v1", 2, "2026-11-30T12:00:00Z", 500, "status 500", 0.25,
        "oops", "2026-11-30T12:00:30Z", Result.RETRY,
    )  # fmt: skip
    assert AttemptRecord.decode(record.encode()) == record
    with pytest.raises(ValueError, match="no record"):
        AttemptRecord.decode(b"{}")
    answer = shown_answer(b"password=hunter2&\x00\x1b[31m" + b"x" * 10_000)
    assert "hunter2" not in answer
    assert "\x1b" not in answer
    assert len(answer) <= 512
