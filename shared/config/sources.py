"""The sources file: which FocalScope systems call back, with what secret, adapter and recording links."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, IPvAnyNetwork, SecretStr, ValidationError, field_validator

from shared.archive.encryption import check_recipient
from shared.config.messages import closest_name, validation_message
from shared.domain.adapter_link import Adapter, make_link, parse_link
from shared.domain.ids import SOURCE_NAME, SourceName
from shared.errors import ConfigError

DEFAULT_SOURCE = SourceName("default")
_FROM_ENVIRONMENT = "env:"
_SETTINGS = "CALLFOLD_"
AGENT_PATTERN = r"[0-9A-Za-z_.@-]{1,64}"
NUMBER_PATTERN = r"\+?[0-9*#]{1,32}"
DIAL_FIELDS = ("agent", "number", "queue_prefix", "reference")
"""What `dial_url` can name in braces."""
RECORDING_FIELDS = ("call_id", "guid", "request_id")
"""What `recording_url` can name in braces."""
_FIELD = re.compile(r"\{([^{}]*)\}")
_PORTS = {"http": 80, "https": 443}


def origin(url: str) -> str:
    """Reduce a URL to scheme, host and port; the port only where it is not the scheme's own."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url.partition('?')[0]} is not an http or https URL with a host")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    is_usual = parts.port in {None, _PORTS[parts.scheme]}
    return f"{parts.scheme}://{host}{'' if is_usual else f':{parts.port}'}"


def _template(*known: str) -> Callable[[SecretStr], SecretStr]:
    """Make the check of a link that may name these fields in braces."""

    def check(template: SecretStr) -> SecretStr:
        link = template.get_secret_value()
        origin(link)
        unknown = [field for field in _FIELD.findall(link) if field not in known]
        if unknown:
            named = ", ".join(f"{{{field}}}" for field in known)
            raise ValueError(f"unknown placeholder {{{unknown[0]}}}; known are {named}")
        return template

    return check


def _check_pattern(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    return pattern


class _Options(BaseModel):
    """What a source has as it is written."""

    dial_url: Annotated[SecretStr, AfterValidator(_template(*DIAL_FIELDS))] | None = None
    recording_url: Annotated[SecretStr, AfterValidator(_template(*RECORDING_FIELDS))] | None = None
    recording_origin: Annotated[str, AfterValidator(origin)] | None = None
    record_legs: frozenset[Literal["agent", "dialed"]] = Field(default=frozenset({"agent", "dialed"}))
    recording_networks: tuple[IPvAnyNetwork, ...] = ()
    recordings_at_once: Annotated[int, Field(gt=0, le=100)] = 4
    recordings_per_second: Annotated[float, Field(ge=0.01, le=1000)] = 20
    archive_recipient: Annotated[str, AfterValidator(check_recipient)] | None = None
    agent_pattern: Annotated[str, AfterValidator(_check_pattern)] = AGENT_PATTERN
    number_pattern: Annotated[str, AfterValidator(_check_pattern)] = NUMBER_PATTERN
    allow_numbers: tuple[str, ...] = ()
    deny_numbers: tuple[str, ...] = ()
    queue_prefixes: tuple[str, ...] = ()


class _Section(_Options):
    """One `[sources.<name>]` table as written."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    secret: SecretStr | None = None
    adapter: str | None = None  # every placeholder, under the names of `callfold adapter-link`

    @field_validator("secret", mode="after")
    @classmethod
    def _resolve(cls, secret: SecretStr | None) -> SecretStr | None:
        written = secret.get_secret_value() if secret else ""
        if not written.startswith(_FROM_ENVIRONMENT):
            return secret if written else None
        name = written.removeprefix(_FROM_ENVIRONMENT)
        if name.startswith(_SETTINGS):
            raise ValueError(f"{written}: variables that begin with {_SETTINGS} are settings; give the secret's another name")
        if not os.environ.get(name):
            raise ValueError(f"the environment variable {name} is not set")
        return SecretStr(os.environ[name])


class Source(_Options):
    """One FocalScope system. Links that carry credentials never show in a repr."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    name: SourceName
    secret: SecretStr | None
    adapter: Adapter


Sources = Mapping[SourceName, Source]


def load_sources(path: Path | None) -> Sources:
    """Read the sources file; without one there is the source `default`, without secret, with every placeholder.

    Raises:
        ConfigError: the file cannot be read, or a source in it cannot work; the sentence names the source and the key.
    """
    if path is None:
        return {DEFAULT_SOURCE: _source(DEFAULT_SOURCE, {})}
    try:
        text = path.read_text("utf-8")
        written = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"The sources file {path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"The sources file {path} is not valid TOML: {error}.") from error
    for name in written:
        if name != "sources" and closest_name(name, ["sources"]):
            raise ConfigError(
                f"The sources file {path} has a table [{name}...]; did you mean [sources...], as in [sources.acme]?"
            )
    tables = written.get("sources")
    if not isinstance(tables, dict) or not tables:
        raise ConfigError(f"The sources file {path} names no source: expected a table like [sources.acme].")
    return {SourceName(name): _source(SourceName(name), table) for name, table in tables.items()}


def unknown_source_message(name: str, sources: Sources) -> str:
    """Say that a source is not configured, and which are."""
    return f"There is no source {name}; configured: {', '.join(sources)}. See CALLFOLD_SOURCES."


def secret_variables(path: Path) -> list[str]:
    """List the variables from which a sources file, known to be good, takes secrets."""
    tables = tomllib.loads(path.read_text("utf-8"))["sources"].values()
    secrets = [str(table.get("secret", "")) for table in tables]
    return [secret.removeprefix(_FROM_ENVIRONMENT) for secret in secrets if secret.startswith(_FROM_ENVIRONMENT)]


def _source(name: SourceName, table: object) -> Source:
    if not SOURCE_NAME.fullmatch(name):
        raise ConfigError(f"The source name {name!r} must be lower-case letters, digits, - or _ (at most 63).")
    if not isinstance(table, dict):
        raise ConfigError(f"Source {name} must be a table: a line [sources.{name}], and its keys below it.")
    try:
        section = _Section.model_validate(table)
        recording_origin = section.recording_origin
        if recording_origin is None and section.recording_url:
            recording_origin = origin(section.recording_url.get_secret_value())
        adapter = parse_link(section.adapter or make_link("http://localhost", "any", None))
    except ValidationError as error:
        raise ConfigError(f"Source {name}: {validation_message(error, _Section.model_fields)}") from None
    except (ConfigError, ValueError) as error:
        raise ConfigError(f"Source {name}: {error}") from None
    if section.secret and adapter.secret and section.secret.get_secret_value() != adapter.secret:
        raise ConfigError(
            f"Source {name}: `secret` and the parameter `token` of `adapter` differ: callbacks would get 401. Leave one out."
        )
    secret = section.secret or (SecretStr(adapter.secret) if adapter.secret else None)
    options = {option: getattr(section, option) for option in _Options.model_fields} | {"recording_origin": recording_origin}
    return Source(name=name, secret=secret, adapter=adapter, **options)
