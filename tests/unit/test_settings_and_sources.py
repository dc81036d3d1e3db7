from __future__ import annotations

from pathlib import Path

import pytest

from shared.errors import ConfigError
from shared.settings import load_settings
from shared.sources import load_sources

LINK = "https://h/?t={{CallTypeName}}&e={{DialApiEventName}}&i={{CallID}}"


def _load(tmp_path: Path, text: str) -> object:
    path = tmp_path / "sources.toml"
    path.write_text(text)
    return load_sources(path)


def test_the_environment_is_read_with_its_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLFOLD_AMQP_URL", "amqp://u:hunter2@a/, amqp://u:hunter2@b/")
    monkeypatch.setenv("CALLFOLD_RECORDING_RETRY_SECONDS", "0.5, 2,30")
    monkeypatch.setenv("CALLFOLD_SETTLE_SECONDS", "3")
    settings = load_settings()
    assert settings.amqp_urls == ("amqp://u:hunter2@a/", "amqp://u:hunter2@b/")
    assert settings.recording_retry_seconds == (0.5, 2, 30)
    assert (settings.policy.settle_s, settings.policy.leg_grace_s, settings.policy.max_call_s) == (3, 120, 14400)
    assert (settings.ingress_port, settings.console_port, settings.retain_seconds) == (8080, 8081, 604800)
    assert "hunter2" not in repr(settings)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("CALLFOLD_INGRESS_PORT", "http", "CALLFOLD_INGRESS_PORT"),
        ("CALLFOLD_TYPO", "1", "CALLFOLD_TYPO"),
        ("CALLFOLD_LEG_GRACE_SECONDS", "5", "leg grace"),
        ("CALLFOLD_RETAIN_SECONDS", "60", "CALLFOLD_RETAIN_SECONDS"),
        ("CALLFOLD_RECORDING_RETRY_SECONDS", "1,soon", "CALLFOLD_RECORDING_RETRY_SECONDS"),
        ("CALLFOLD_LOG_FORMAT", "xml", "CALLFOLD_LOG_FORMAT"),
        ("CALLFOLD_AMQP_URL", ",", "CALLFOLD_AMQP_URL"),
        ("CALLFOLD_AMQP_URL", "http://rabbit", "CALLFOLD_AMQP_URL"),
        ("CALLFOLD_REDIS_URL", "http://redis", "CALLFOLD_REDIS_URL"),
    ],
)
def test_what_cannot_work_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=said):
        load_settings()


def test_without_a_file_there_is_one_source_without_a_secret() -> None:
    (source,) = load_sources(None).values()
    assert (source.name, source.secret, source.recording_origin) == ("default", None, None)


def test_a_source_is_read_and_shows_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME", "hunter2")
    sources = _load(
        tmp_path,
        f"""
[sources.acme]
secret = "env:ACME"
adapter = "{LINK}"
recording_url = "https://pbx.example.com:8443/get?nId={{call_id}}&sectok=hunter3"
record_legs = ["dialed"]
[sources.other]
adapter = "{LINK}&token=hunter4"
recording_origin = "http://10.0.0.5:8080/some/path"
""",
    )
    assert isinstance(sources, dict)
    acme, other = sources.values()
    assert acme.secret.get_secret_value() == "hunter2"
    assert acme.recording_origin == "https://pbx.example.com:8443"
    assert acme.record_legs == {"dialed"}
    assert other.secret.get_secret_value() == "hunter4"
    assert other.recording_origin == "http://10.0.0.5:8080"
    assert "hunter" not in repr(sources)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[sources.acme]\nsecret = 5", "acme: secret"),
        ("[sources.acme]\nsecrets = 'x'", "acme: secrets"),
        ("[sources.acme]\nsecret = 'env:NOT_SET_ANYWHERE'", "NOT_SET_ANYWHERE"),
        ("[sources.acme]\nrecord_legs = ['left']", "record_legs"),
        ("[sources.acme]\nrecording_origin = 'ftp://x'", "recording_origin"),
        ("[sources.acme]\nadapter = 'https://h/?a={{CallID}}'", r"lacks \{\{CallTypeName\}\}"),
        ("[sources.'A B']\n", "lower-case"),
        ("[sources", "not valid TOML"),
        ("title = 'x'", "names no source"),
    ],
)
def test_a_source_that_cannot_work_is_named_with_its_key(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        _load(tmp_path, text)
