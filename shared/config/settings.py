"""All settings: environment variables `CALLFOLD_*`, read once and checked together. docs/settings.md lists them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from shared import crash_points as crash
from shared.amqp.amqp_url import check_amqp_url
from shared.config.environment import with_credentials
from shared.config.messages import closest_name, validation_message
from shared.config.sources import Sources, load_sources
from shared.domain.closing import Policy
from shared.errors import ConfigError
from shared.state.redis_url import parse_redis_url

PREFIX = "CALLFOLD_"

HISTORY_SCHEMES = ("sqlite:///", "postgresql+psycopg://")

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})

# 100 years. Beyond a few thousand, times could not be calculated.
_MAX_DAYS = 36525
_MAX_SECONDS = _MAX_DAYS * 86400
Seconds = Annotated[float, Field(gt=0, le=_MAX_SECONDS)]
Port = Annotated[int, Field(ge=0, le=65535)]


class Settings(BaseSettings):
    """Every setting with its default. Times are in seconds, sizes in bytes. Port 0 means any free port."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, hide_input_in_errors=True)

    amqp_url: SecretStr = Field(
        default=SecretStr("amqp://guest:guest@127.0.0.1:5672/"),
        description="RabbitMQ URL. Several URLs are separated by commas. Each connection begins with a random one.",
    )
    management_url: SecretStr | None = Field(
        default=None,
        description="URL of RabbitMQ's management API, with a user that has the tag `policymaker`. "
        "`callfold doctor` and workers then report policies that are missing or can lose messages.",
    )
    amqp_declare: bool = Field(
        default=True,
        description="`false`: processes declare no queues, exchanges and bindings. `callfold broker declare` does it once.",
    )
    fold_queue_bytes: int = Field(
        default=2 << 30,
        ge=1 << 20,
        description="Size at which `callbacks.fold` is full: the `max-length-bytes` of its policy. Nearly there, ingress spools.",
    )
    redis_url: SecretStr = Field(
        default=SecretStr("redis://127.0.0.1:6379/0"),
        description="URL of Redis or Valkey: `redis://`, `redis+sentinel://` or `redis+cluster://`, each also with TLS.",
    )
    redis_replicas: Annotated[int, Field(ge=0, le=10)] = Field(
        default=0, description="Replicas that confirm what must not be lost, for at most a second. Work goes on without them."
    )
    secrets_dir: Path | None = Field(
        default=None,
        description="Directory of credentials. Each file has the name of its variable, such as `CALLFOLD_CONSOLE_KEY`.",
    )
    sources_file: Path | None = Field(
        default=None,
        validation_alias=PREFIX + "SOURCES",
        description="TOML file of the sources. Without it there is one source, `default`, without a secret.",
    )
    endpoints_file: Path | None = Field(
        default=None,
        validation_alias=PREFIX + "ENDPOINTS",
        description="TOML file of the endpoints of webhooks. Without it only those that the API manages exist.",
    )
    ingress_host: str = Field(default="127.0.0.1", description="Address on which ingress listens.")
    ingress_port: Port = Field(default=8080, description="Port on which ingress listens.")
    console_host: str = Field(default="127.0.0.1", description="Address on which the console listens.")
    console_port: Port = Field(default=8081, description="Port on which the console listens.")
    console_key: SecretStr | None = Field(
        default=None, description="API key of the console. Without it the console listens on loopback only."
    )
    console_viewer_keys: SecretStr | None = Field(
        default=None, description="API keys with read-only access to the console, separated by commas."
    )
    console_proxies: str = Field(
        default="",
        description="Reverse proxies whose X-Forwarded-For the console trusts: addresses or networks, separated by commas.",
    )
    ingress_proxies: str = Field(
        default="",
        description="Load balancers whose X-Forwarded-For ingress trusts: addresses or networks, separated by commas.",
    )
    max_connections: Annotated[int, Field(ge=16)] = Field(
        default=4096,
        description="Maximum open connections to the port of ingress or console; fewer if the limit of descriptors is low.",
    )
    dial_timeout_seconds: Seconds = Field(default=10, description="Maximum wait for FocalScope's answer to a dial request.")
    dials_per_day: Annotated[int, Field(gt=0)] = Field(
        default=5000, description="Maximum dial requests per API key and day (UTC)."
    )
    dials_per_minute: Annotated[int, Field(gt=0)] = Field(default=60, description="Maximum dial requests per API key and minute.")
    metrics_host: str = Field(default="127.0.0.1", description="Address of the private port of every process.")
    metrics_port: Port = Field(default=0, description="Private port of every process: /healthz, /readyz, /metrics.")
    spool_dir: Path = Field(
        default=Path(".callfold/spool"),
        description="Directory of the callbacks that ingress accepts while RabbitMQ is unavailable.",
    )
    spool_max_bytes: int = Field(default=1 << 30, ge=1 << 20, description="Maximum size of the spool file.")
    spool_drain_seconds: Annotated[float, Field(ge=0, le=_MAX_SECONDS)] = Field(
        default=20,
        description="Maximum time after SIGTERM in which ingress publishes what is left in its spool (0: leave it).",
    )
    ops_hold_seconds: Seconds = Field(
        default=60, description="Time for which a condition must be good before an operator event clears it."
    )
    source_bytes_per_day: int = Field(
        default=5 << 30,
        ge=1 << 20,
        description="Bytes that each ingress accepts from one source per day, at least 1 MiB. Beyond, the answer is 429.",
    )
    archive_url: str = Field(
        default_factory=lambda: Path(".callfold/archive").absolute().as_uri(),
        description="Location of the archive: `file:///...` or `s3://bucket/prefix`.",
    )
    archive_identity: Path | None = Field(
        default=None,
        description="age identity file that decrypts recordings. Set it where people listen to recordings, not for workers.",
    )
    public_url: str = Field(
        default="",
        description="URL of the console as others reach it, such as `https://calls.example.com`. vCons name recordings by it.",
    )
    vcon_signing_key: Path | None = Field(
        default=None,
        description="PEM file with a private key and its certificate chain. With it, the console signs vCons.",
    )
    settle_seconds: Seconds = Field(default=10, description="Wait before an ambiguous end of a call counts as final.")
    leg_grace_seconds: Seconds = Field(
        default=120, description="Wait for the other legs after one leg has ended, counted from the last event."
    )
    max_call_seconds: Seconds = Field(default=4 * 3600, description="Time without an event after which a call is closed.")
    retain_seconds: Annotated[int, Field(gt=0, le=_MAX_SECONDS)] = Field(
        default=7 * 86400, description="Time that Redis keeps a call after its completion."
    )
    recording_retry_seconds: Annotated[tuple[Seconds, ...], NoDecode, Field(min_length=1)] = Field(
        default=(5, 30, 120, 600, 3600, 21600),
        description="Delays before the retries of a recording, separated by commas.",
    )
    forward_retry_seconds: Annotated[tuple[Seconds, ...], NoDecode, Field(min_length=1, max_length=20)] = Field(
        default=(5, 30, 120, 600, 1800, 7200, 21600, 43200, 86400, 86400),
        description="Delays before the retries of a webhook, separated by commas. By default they take three days.",
    )
    recording_max_bytes: int = Field(default=2 << 30, gt=0, description="Maximum size of a recording.")
    recording_concurrency: Annotated[int, Field(gt=0, le=100)] = Field(
        default=8,
        description="Concurrent recording jobs per worker, not counting long downloads. Limit per source: `recordings_at_once`.",
    )
    recording_stall_seconds: Seconds = Field(
        default=30, description="Time without a byte after which a download attempt is aborted."
    )
    recording_min_bytes_per_second: Annotated[float, Field(ge=0)] = Field(
        default=1024,
        description="Minimum average download speed over `CALLFOLD_RECORDING_STALL_SECONDS`. A slower attempt is aborted.",
    )
    recording_ack_seconds: Seconds = Field(
        default=600,
        description="Time after which a recording job is acked while its download continues. "
        "Must be below RabbitMQ's `consumer_timeout`.",
    )
    recording_dir: Path = Field(
        default=Path(".callfold/downloads"), description="Directory of unfinished downloads on the worker's machine."
    )
    recording_kept_bytes: Annotated[int, Field(ge=0)] = Field(
        default=10 << 30,
        description="Maximum total size of interrupted downloads in `CALLFOLD_RECORDING_DIR`. "
        "Above it, the oldest are deleted and start over.",
    )
    recording_refused_bytes: Annotated[int, Field(ge=0)] = Field(
        default=2 << 30,
        description="Maximum total size of a source's files that were refused as recordings and are kept in the archive. "
        "Above it, the oldest are deleted (0: keep none).",
    )
    retention_days: Annotated[int, Field(ge=0, le=_MAX_DAYS)] = Field(
        default=0, description="Age in days at which the daily retention deletes recordings (0: never)."
    )
    retention_with_records: bool = Field(
        default=False, description="Whether retention also deletes the sidecars, which hold the call records."
    )
    history_url: SecretStr | None = Field(
        default=None,
        description="Database URL of the history: `sqlite:///...` or `postgresql+psycopg://...`. "
        "Without it the console has no history. `callfold history` then writes "
        "`sqlite:///.callfold/history.sqlite`, which `callfold calls` and `callfold show` read.",
    )
    publish_timeout_seconds: Seconds = Field(default=3, description="Maximum wait for a publisher confirm.")
    timer_hold_off_seconds: Annotated[float, Field(ge=0, le=_MAX_SECONDS)] = Field(
        default=15,
        description="Pause of the timers after a reconnect to RabbitMQ or a refused marker: ingress reports its spool first.",
    )
    timer_lease_seconds: Seconds = Field(
        default=5, description="Lease of a worker on a due call. If the worker dies, another takes over after this time."
    )
    drain_seconds: Annotated[float, Field(ge=0, le=_MAX_SECONDS)] = Field(
        default=2,
        description="Time on SIGTERM between turning unready and closing the port, so that load balancers notice.",
    )
    shutdown_timeout_seconds: Seconds = Field(default=15, description="Maximum time to finish work in flight after SIGTERM.")
    log_format: Literal["auto", "json", "console"] = Field(
        default="auto", description="`json`, `console`, or `auto`: `console` on a terminal, else `json`."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Minimum level of log lines.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        *_: PydanticBaseSettingsSource,
        **__: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (_Environment(settings_cls),)

    @model_validator(mode="before")
    @classmethod
    def _split_schedule(cls, data: dict[str, object]) -> dict[str, object]:
        for name in ("recording_retry_seconds", "forward_retry_seconds"):
            schedule = data.get(name)
            if isinstance(schedule, str):
                data[name] = tuple(part.strip() for part in schedule.split(",") if part.strip())
        return data

    @field_validator("console_key", "console_viewer_keys", "management_url", mode="after")
    @classmethod
    def _no_empty_key(cls, key: SecretStr | None) -> SecretStr | None:
        # A compose file sets `${KEY:-}` to an empty key, which would let requests without a key in.
        return key if key is not None and key.get_secret_value().strip() else None

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        for url in self.amqp_urls or ("",):
            try:
                check_amqp_url(url)
            except ValueError as error:
                raise ValueError(f"CALLFOLD_AMQP_URL {error}") from None
        parse_redis_url(self.redis_url.get_secret_value())
        if self.management_url and not self.management_url.get_secret_value().startswith(("http://", "https://")):
            raise ValueError("CALLFOLD_MANAGEMENT_URL must be an http:// or https:// URL")
        if self.public_url:
            public = urlsplit(self.public_url)
            is_http = public.scheme in {"http", "https"} and public.hostname
            if not is_http or public.query or public.fragment or public.username:
                raise ValueError("CALLFOLD_PUBLIC_URL must be an http:// or https:// URL without login and query")
        if self.history_url and not self.history_url.get_secret_value().startswith(HISTORY_SCHEMES):
            raise ValueError("CALLFOLD_HISTORY_URL must be a sqlite:/// or postgresql+psycopg:// URL")
        if not self.settle_seconds <= self.leg_grace_seconds <= self.max_call_seconds:
            raise ValueError(
                "CALLFOLD_SETTLE_SECONDS, CALLFOLD_LEG_GRACE_SECONDS and CALLFOLD_MAX_CALL_SECONDS must not decrease"
            )
        if self.retain_seconds < self.max_call_seconds:
            raise ValueError(
                "CALLFOLD_RETAIN_SECONDS must be at least CALLFOLD_MAX_CALL_SECONDS, else a late callback cannot amend its call"
            )
        return self

    @property
    def amqp_urls(self) -> tuple[str, ...]:
        return tuple(url.strip() for url in self.amqp_url.get_secret_value().split(",") if url.strip())

    @property
    def viewer_keys(self) -> tuple[str, ...]:
        keys = self.console_viewer_keys.get_secret_value() if self.console_viewer_keys else ""
        return tuple(key.strip() for key in keys.split(",") if key.strip())

    @property
    def policy(self) -> Policy:
        return Policy(self.settle_seconds, self.leg_grace_seconds, self.max_call_seconds)

    def load_sources(self) -> Sources:
        return load_sources(self.sources_file)


class _Environment(EnvSettingsSource):
    """The environment variables, with credentials from files and without variables of services."""

    def __init__(self, settings_class: type[BaseSettings]) -> None:
        super().__init__(settings_class)
        self.env_vars = {name.lower(): value for name, value in with_credentials(os.environ, CREDENTIALS).items()}


def load_settings() -> Settings:
    """Read the environment.

    Raises:
        ConfigError: a variable is unknown or invalid, or a credential's file cannot be read; the message names it.
    """
    known = [variable_of(name) for name in Settings.model_fields]
    environment = with_credentials(os.environ, CREDENTIALS)
    unknown = sorted(name for name in environment if name.startswith(PREFIX) and name not in {*known, crash.VARIABLE})
    if unknown:
        guess = closest_name(unknown[0].removeprefix(PREFIX), [name.removeprefix(PREFIX) for name in known])
        hint = f"Did you mean {PREFIX}{guess}?" if guess else "Run `callfold settings` for a list."
        raise ConfigError(f"Unknown setting {unknown[0]}. {hint}")
    try:
        return Settings()
    except ValidationError as error:
        raise ConfigError(validation_message(error, known, label=variable_of)) from None


_ALIASES = {
    name: field.validation_alias for name, field in Settings.model_fields.items() if isinstance(field.validation_alias, str)
}


def variable_of(field: str) -> str:
    """Return the environment variable of a field."""
    alias = _ALIASES.get(field)
    return alias if alias is not None else field if field.startswith(PREFIX) else PREFIX + field.upper()


CREDENTIALS = tuple(
    variable_of(name) for name, field in Settings.model_fields.items() if field.annotation in {SecretStr, SecretStr | None}
)
"""The settings that can also come from files."""
