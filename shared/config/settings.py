"""All settings: environment variables `CALLFOLD_*`, read once, checked as a whole, listed in docs/settings.md."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from shared import crash_points as crash
from shared.config.messages import closest_name, validation_message
from shared.config.sources import Sources, load_sources
from shared.domain.call import Policy
from shared.errors import ConfigError

PREFIX = "CALLFOLD_"

HISTORY_SCHEMES = ("sqlite:///", "postgresql+psycopg://")

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})

Seconds = Annotated[float, Field(gt=0)]
Port = Annotated[int, Field(ge=0, le=65535)]


class Settings(BaseSettings):
    """Every setting with its default. Times are seconds, sizes bytes; a port of 0 means any free one."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, hide_input_in_errors=True)

    amqp_url: SecretStr = Field(
        default=SecretStr("amqp://guest:guest@127.0.0.1:5672/"),
        description="RabbitMQ. Several URLs, separated by commas, are tried in turn.",
    )
    redis_url: SecretStr = Field(default=SecretStr("redis://127.0.0.1:6379/0"), description="Redis or Valkey.")
    sources_file: Path | None = Field(
        default=None,
        validation_alias=PREFIX + "SOURCES",
        description="TOML file of sources; without it there is one source, `default`, without secret.",
    )
    ingress_host: str = Field(default="127.0.0.1", description="Address the ingress listens on.")
    ingress_port: Port = Field(default=8080, description="Port the ingress listens on.")
    console_host: str = Field(default="127.0.0.1", description="Address the console listens on.")
    console_port: Port = Field(default=8081, description="Port the console listens on.")
    console_key: SecretStr | None = Field(default=None, description="API key of the console.")
    console_viewer_keys: SecretStr | None = Field(
        default=None, description="Keys, separated by commas, that may read from the console and change nothing."
    )
    console_proxies: str = Field(
        default="",
        description="Proxies before the console, whose X-Forwarded-For is believed: addresses or networks, separated by commas.",
    )
    dial_timeout_seconds: Seconds = Field(default=10, description="Wait for FocalScope's answer to a dial request.")
    dials_per_minute: Annotated[int, Field(gt=0)] = Field(default=60, description="Dial requests that one key may make a minute.")
    metrics_host: str = Field(default="127.0.0.1", description="Address of the private port.")
    metrics_port: Port = Field(default=0, description="Private port: /healthz, /readyz, /metrics.")
    spool_dir: Path = Field(default=Path(".callfold/spool"), description="Where callbacks wait while the broker is away.")
    spool_max_bytes: int = Field(default=1 << 30, ge=1 << 20, description="Largest size of the spool file.")
    archive_url: str = Field(
        default_factory=lambda: Path(".callfold/archive").absolute().as_uri(),
        description="Where recordings go: `file:///...` or `s3://bucket/prefix`.",
    )
    archive_identity: Path | None = Field(
        default=None,
        description="Identity file of age-keygen that opens sealed recordings: where people may listen, not for workers.",
    )
    settle_seconds: Seconds = Field(default=10, description="Wait before an ambiguous end counts as final.")
    leg_grace_seconds: Seconds = Field(default=120, description="Wait for the other leg once one has ended.")
    max_call_seconds: Seconds = Field(default=4 * 3600, description="Silence after which a call is closed.")
    retain_seconds: Annotated[int, Field(gt=0)] = Field(
        default=7 * 86400, description="How long Redis keeps a call after completion."
    )
    recording_retry_seconds: Annotated[tuple[Seconds, ...], NoDecode, Field(min_length=1)] = Field(
        default=(5, 30, 120, 600, 3600, 21600),
        description="Waits before each new try of a recording, separated by commas.",
    )
    recording_max_bytes: int = Field(default=2 << 30, gt=0, description="Largest recording that is stored.")
    recording_concurrency: Annotated[int, Field(gt=0, le=100)] = Field(
        default=8,
        description="Recording jobs at a time, per worker; long downloads come on top. Of one source: set there.",
    )
    recording_stall_seconds: Seconds = Field(default=30, description="Silence after which a download is given up for this try.")
    recording_min_bytes_per_second: Annotated[float, Field(ge=0)] = Field(
        default=1024, description="A download slower than this, over the time above, is given up for this try."
    )
    recording_ack_seconds: Seconds = Field(
        default=600,
        description="After this time a recording job is acked, and goes on; must be below RabbitMQ's `consumer_timeout`.",
    )
    recording_dir: Path = Field(
        default=Path(".callfold/downloads"), description="Where downloads lie, on the worker's machine, until they are whole."
    )
    recording_kept_bytes: Annotated[int, Field(ge=0)] = Field(
        default=10 << 30,
        description="How much of broken downloads may lie there until their next try; the oldest are dropped, and begun anew.",
    )
    retention_days: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Recordings older than this many days are deleted, daily; 0: never."
    )
    retention_with_records: bool = Field(
        default=False, description="Whether retention deletes the sidecars, with the call records in them, as well."
    )
    history_url: SecretStr | None = Field(
        default=None,
        description="Database of the history: `sqlite:///...` or `postgresql+psycopg://...`. Without it the console has no "
        "history, and `callfold history` writes `sqlite:///.callfold/history.sqlite`, which `callfold calls` and `show` read.",
    )
    publish_timeout_seconds: Seconds = Field(default=3, description="Wait for a publisher confirm.")
    timer_hold_off_seconds: Annotated[float, Field(ge=0)] = Field(
        default=15,
        description="How long timers wait after a reconnect to RabbitMQ: by then every ingress has told what lies in its spool.",
    )
    timer_lease_seconds: Seconds = Field(
        default=5, description="How long a due call is leased; if its worker dies, another takes over after this time."
    )
    drain_seconds: Annotated[float, Field(ge=0)] = Field(
        default=2,
        description="On SIGTERM: time between readiness off and closing the door, for load balancers to notice.",
    )
    shutdown_timeout_seconds: Seconds = Field(default=15, description="Time to finish what is in flight on SIGTERM.")
    log_format: Literal["auto", "json", "console"] = Field(
        default="auto", description="`json`, `console`, or by whether the output is a terminal."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Lowest level that is logged.")

    @model_validator(mode="before")
    @classmethod
    def _split_schedule(cls, data: dict[str, object]) -> dict[str, object]:
        schedule = data.get("recording_retry_seconds")
        if isinstance(schedule, str):
            data["recording_retry_seconds"] = tuple(part.strip() for part in schedule.split(",") if part.strip())
        return data

    @field_validator("console_key", "console_viewer_keys", mode="after")
    @classmethod
    def _no_empty_key(cls, key: SecretStr | None) -> SecretStr | None:
        # `${KEY:-}` of a compose file: nobody closest_name that who sends nothing may do everything.
        return key if key is not None and key.get_secret_value().strip() else None

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if not self.amqp_urls or not all(url.startswith(("amqp://", "amqps://")) for url in self.amqp_urls):
            raise ValueError("CALLFOLD_AMQP_URL is not a list of amqp:// or amqps:// URLs separated by commas")
        if not self.redis_url.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("CALLFOLD_REDIS_URL is not a redis://, rediss:// or unix:// URL")
        if self.history_url and not self.history_url.get_secret_value().startswith(HISTORY_SCHEMES):
            raise ValueError("CALLFOLD_HISTORY_URL is neither a sqlite:/// nor a postgresql+psycopg:// URL")
        if not self.settle_seconds <= self.leg_grace_seconds <= self.max_call_seconds:
            raise ValueError("settle, leg grace and maximum call time must not decrease: a shorter one would never be reached")
        if self.retain_seconds < self.max_call_seconds:
            raise ValueError(
                "CALLFOLD_RETAIN_SECONDS is below CALLFOLD_MAX_CALL_SECONDS: a late callback would no longer amend the call"
            )
        return self

    @property
    def amqp_urls(self) -> tuple[str, ...]:
        return tuple(url.strip() for url in self.amqp_url.get_secret_value().split(",") if url.strip())

    @property
    def policy(self) -> Policy:
        return Policy(self.settle_seconds, self.leg_grace_seconds, self.max_call_seconds)

    def load_sources(self) -> Sources:
        return load_sources(self.sources_file)


def load_settings() -> Settings:
    """Read the environment.

    Raises:
        ConfigError: a variable is unknown or wrong; the sentence names it.
    """
    known = [_variable(name) for name in Settings.model_fields]
    unknown = sorted(name for name in os.environ if name.startswith(PREFIX) and name not in {*known, crash.VARIABLE})
    if unknown:
        guess = closest_name(unknown[0].removeprefix(PREFIX), [name.removeprefix(PREFIX) for name in known])
        hint = f"did you mean {PREFIX}{guess}?" if guess else "`callfold settings` lists all; other names must not begin so."
        raise ConfigError(f"Unknown setting {unknown[0]}: {hint}")
    try:
        return Settings()
    except ValidationError as error:
        raise ConfigError(validation_message(error, known, name=_variable)) from None


def _variable(field: str) -> str:
    if field == "sources_file" or field.startswith(PREFIX):
        return PREFIX + "SOURCES"
    return PREFIX + field.upper()


def variables() -> list[tuple[str, str, str]]:
    """List every setting as (variable, default, description) for help and docs."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
        if field.default_factory is not None:
            default = ".callfold/archive as a file URL"
        if isinstance(default, tuple):
            default = ",".join(f"{part:g}" for part in default)
        rows.append((_variable(name), "" if default is None else str(default), field.description or ""))
    return rows
