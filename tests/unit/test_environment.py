"""The environment: credentials in files, variables of Kubernetes services, and secrets that anybody could guess."""

from __future__ import annotations

from pathlib import Path

import pytest

from console.local.env_file import write_env_file
from console.service import serve as serve_console
from ingress.service import serve as serve_ingress
from shared.config.environment import service_variables
from shared.config.secret_strength import weakness
from shared.config.settings import CREDENTIALS, load_settings
from shared.config.sources import load_sources
from shared.errors import ConfigError
from shared.runtime.process import StopRequest
from tests.helpers.settings import settings_here

# What Kubernetes sets for the services `callfold`, `callfold-ingress` and `callfold-redis`, and Docker for a link.
OF_SERVICES = {
    "CALLFOLD_PORT": "tcp://10.0.0.7:8080",
    "CALLFOLD_SERVICE_HOST": "10.0.0.7",
    "CALLFOLD_SERVICE_PORT": "8080",
    "CALLFOLD_INGRESS_PORT": "tcp://10.0.0.7:8080",
    "CALLFOLD_INGRESS_PORT_8080_TCP": "tcp://10.0.0.7:8080",
    "CALLFOLD_INGRESS_PORT_8080_TCP_ADDR": "10.0.0.7",
    "CALLFOLD_INGRESS_PORT_8080_TCP_PORT": "8080",
    "CALLFOLD_INGRESS_PORT_8080_TCP_PROTO": "tcp",
    "CALLFOLD_INGRESS_SERVICE_HOST": "10.0.0.7",
    "CALLFOLD_INGRESS_SERVICE_PORT": "8080",
    "CALLFOLD_INGRESS_SERVICE_PORT_HTTP": "8080",
    "CALLFOLD_METRICS_PORT": "udp://[fd00::7]:9090",
    "CALLFOLD_REDIS_PORT_6379_UDP": "udp://10.0.0.8:6379",
}


def test_variables_of_services_are_no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = settings_here(monkeypatch, OF_SERVICES | {"CALLFOLD_CONSOLE_PORT": "8123"})
    assert (settings.ingress_port, settings.metrics_port, settings.console_port) == (8080, 0, 8123)
    assert service_variables(OF_SERVICES | {"CALLFOLD_CONSOLE_PORT": "8123", "PATH": "tcp://"}) == sorted(OF_SERVICES)
    write_env_file(tmp_path / "env", {})
    assert not [name for name in OF_SERVICES if f"export {name}=" in (tmp_path / "env").read_text()]


@pytest.mark.parametrize("name", ["CALLFOLD_INGRES_PORT", "CALLFOLD_PORT_HTTP", "CALLFOLD_SERVICE", "CALLFOLD_REDIS_SERVICE_URL"])
def test_a_misspelled_setting_is_not_taken_for_a_service(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with pytest.raises(ConfigError, match=f"Unknown setting {name}"):
        settings_here(monkeypatch, {name: "8080"})


@pytest.mark.parametrize("name", CREDENTIALS)
def test_each_credential_can_be_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    values = {
        "CALLFOLD_AMQP_URL": "amqp://u:p@h/",
        "CALLFOLD_MANAGEMENT_URL": "http://u:p@h/",
        "CALLFOLD_REDIS_URL": "redis://:p@h/0",
        "CALLFOLD_HISTORY_URL": "sqlite:///h",
    }
    value = values.get(name, "a key")
    field = name.removeprefix("CALLFOLD_").lower()
    (tmp_path / "one").write_text(f"{value}\n")
    with monkeypatch.context() as patch:
        assert getattr(settings_here(patch, {f"{name}_FILE": str(tmp_path / "one")}), field).get_secret_value() == value
        patch.setenv(name, value)
        with pytest.raises(ConfigError, match=f"^{name} and {name}_FILE are both set"):
            load_settings()
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / name.lower()).write_text(value)
    with monkeypatch.context() as patch:
        settings = settings_here(patch, {"CALLFOLD_SECRETS_DIR": str(tmp_path / "secrets")})
        assert getattr(settings, field).get_secret_value() == value
        assert value not in repr(settings)
        other = value + "2" if name in values else "another key"
        patch.setenv(name, other)
        assert getattr(load_settings(), field).get_secret_value() == other


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "is empty"), (b"\n", "is empty"), (b"a\nb", "more than one line"), (b"\xff", "is not UTF-8"), (None, "No such")],
)
def test_a_file_without_one_credential_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None, said: str
) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"^CALLFOLD_CONSOLE_KEY_FILE: .*{said}") as refused:
        settings_here(monkeypatch, {"CALLFOLD_CONSOLE_KEY_FILE": str(path)})
    assert str(path) in str(refused.value)


def test_a_secrets_directory_that_is_away_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^CALLFOLD_SECRETS_DIR: cannot read .*/away .No such"):
        settings_here(monkeypatch, {"CALLFOLD_SECRETS_DIR": str(tmp_path / "away")})


def test_a_source_reads_secret_and_links_from_files_and_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hunter2\n")
    monkeypatch.setenv("DIAL", "https://pbx/dial?pw=hunter3&n={number}")
    sources = tmp_path / "sources.toml"
    sources.write_text(f"[sources.acme]\nsecret = 'file:{tmp_path}/secret'\ndial_url = 'env:DIAL'")
    (source,) = load_sources(sources).values()
    assert source.secret
    assert source.secret.get_secret_value() == "hunter2"
    assert source.dial_url
    assert source.dial_url.get_secret_value() == "https://pbx/dial?pw=hunter3&n={number}"
    sources.write_text("[sources.acme]\nsecret = 'file:/nowhere/secret'")
    with pytest.raises(ConfigError, match=r"acme, secret: file:/nowhere/secret: cannot read /nowhere/secret .No such file"):
        load_sources(sources)


@pytest.mark.parametrize("secret", ["x", "12345678901", "x" * 40, "abcabcabcabcabcabc", "change-me-to-a-long-random-word"])
def test_a_secret_that_is_easy_to_guess_is_weak(secret: str) -> None:
    problem = weakness(secret)
    assert problem
    assert "openssl rand" in problem


def test_a_secret_of_128_bits_is_strong() -> None:
    assert weakness("8c1f0e52ab34d6790011223344556677") is None


@pytest.mark.parametrize(
    ("serve", "settings", "said"),
    [
        (serve_ingress, {"CALLFOLD_INGRESS_HOST": "0.0.0.0"}, "The secret of source acme has 1 character,"),  # noqa: S104 - refused
        (serve_console, {"CALLFOLD_CONSOLE_HOST": "::", "CALLFOLD_CONSOLE_KEY": "x"}, "CALLFOLD_CONSOLE_KEY has 1 character,"),
        (
            serve_console,
            {"CALLFOLD_CONSOLE_HOST": "::", "CALLFOLD_CONSOLE_KEY": "1234567890abcdef", "CALLFOLD_CONSOLE_VIEWER_KEYS": "xx"},
            "A key in CALLFOLD_CONSOLE_VIEWER_KEYS has 2 characters,",
        ),
    ],
)
async def test_beyond_loopback_a_weak_secret_stops_the_start_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, serve: object, settings: dict[str, str], said: str
) -> None:
    sources = tmp_path / "sources.toml"
    sources.write_text("[sources.acme]\nsecret = 'x'")
    here = settings_here(monkeypatch, {"CALLFOLD_SOURCES": str(sources), **settings})
    assert callable(serve)
    with pytest.raises(ConfigError, match=said):
        await serve(here, StopRequest())
