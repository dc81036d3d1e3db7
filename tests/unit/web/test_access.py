"""Keys, clients behind proxies, and wrong keys."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import cast

import pytest
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from console.web.keys import Keys
from console.web.wrong_keys import WrongKeys
from shared.config.settings import load_settings
from shared.errors import ConfigError
from shared.runtime.audit import Action, Audit
from shared.runtime.client_address import Proxies
from tests.helpers.console import KEY, VIEWER_KEY


def test_every_key_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLFOLD_CONSOLE_KEY", KEY)
    monkeypatch.setenv("CALLFOLD_CONSOLE_VIEWER_KEYS", f"{VIEWER_KEY},third")
    keys = Keys(load_settings())
    compared: list[tuple[object, object]] = []
    real = hmac.compare_digest

    def noted(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return real(a, b)

    monkeypatch.setattr(hmac, "compare_digest", noted)
    for given in (KEY, VIEWER_KEY, "wrong"):
        compared.clear()
        keys.by_secret(given)
        assert len(compared) == 3
        assert {len(bytes(side)) for pair in compared for side in pair} == {32}  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("remote", "forwarded", "client"),
    [
        ("192.0.2.1", ["203.0.113.7"], "192.0.2.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.7", "203.0.113.8"], "203.0.113.8"),
        ("10.0.0.1", ["no address"], "10.0.0.1"),
        ("10.0.0.1", ["no address, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("::ffff:10.0.0.1", ["2001:db8:1:2:3::4"], "2001:db8:1:2::/64"),
        ("fd00::1", ["2001:db8::1"], "fd00::/64"),
        (None, ["203.0.113.7"], "?"),
    ],
)
def test_a_client_is_whom_the_last_proxy_of_ours_names(remote: str | None, forwarded: list[str], client: str) -> None:
    headers = CIMultiDict([("X-Forwarded-For", each) for each in forwarded])
    request = make_mocked_request("POST", "/login", headers=headers).clone(
        remote=cast("str", remote)
    )  # aiohttp's own are `None` where a client is not known
    assert Proxies("10.0.0.0/8").client(request) == client


def test_without_a_key_whoever_acts_is_named_by_address() -> None:
    request = make_mocked_request("POST", "/dial").clone(remote="127.0.0.1")
    identity = Keys(load_settings()).identify(request)
    assert identity
    assert identity.name == "address 127.0.0.1"


def test_a_proxy_that_is_no_address_is_a_clear_error() -> None:
    with pytest.raises(ConfigError, match=r"CALLFOLD_CONSOLE_PROXIES: 'proxy\.example' does not appear"):
        Proxies("10.0.0.1, proxy.example")


@dataclass(slots=True)
class _Audit:
    """Keeps what is audited."""

    lines: list[tuple[str, object]] = field(default_factory=list)

    async def record(self, action: Action, who: str, *, count: int | None = None) -> None:
        assert action is Action.LOG_IN_REFUSED
        self.lines.append((who, count))


def _wrong_keys() -> tuple[WrongKeys, list[tuple[str, object]]]:
    audit = _Audit()
    return WrongKeys(cast("Audit", audit)), audit.lines


async def test_of_a_client_that_guesses_the_first_wrong_keys_are_audited_and_then_their_count() -> None:
    wrong_keys, lines = _wrong_keys()
    for number in range(600):
        assert wrong_keys.is_limited("192.0.2.1") is (number >= 30)
        await wrong_keys.add("192.0.2.1")
    assert not wrong_keys.is_limited("192.0.2.2")
    assert lines == [("192.0.2.1", None)] * 30
    for _ in range(2):
        await wrong_keys.audit_counts()
    assert lines[30:] == [("192.0.2.1", 570)]


async def test_many_clients_that_guess_are_remembered_and_audited_to_a_limit() -> None:
    wrong_keys, lines = _wrong_keys()
    for number in range(30_000):
        await wrong_keys.add(str(number))
    assert (len(wrong_keys._latest), len(wrong_keys._only_counted)) == (10_000, 10_001)
    assert len(lines) == 300
    await wrong_keys.audit_counts()
    counts = [count for _, count in lines[300:]]
    assert len(counts) <= 21
    assert sum(cast("list[int]", counts)) == 30_000 - 300
