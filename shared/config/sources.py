"""The sources file: the FocalScope systems that send callbacks, with their secrets, adapter links and recording links."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, IPvAnyNetwork, SecretStr, ValidationError, field_validator

from shared.archive.encryption import check_recipient
from shared.config.environment import read_credential
from shared.config.links import check_dial_login, check_origin, login_of, origin
from shared.config.messages import closest_name, validation_message
from shared.domain.adapter_link import Adapter, make_link, parse_link
from shared.domain.ids import SOURCE_NAME, SourceName
from shared.errors import ConfigError
from shared.phone_numbers import is_country

DEFAULT_SOURCE = SourceName("default")
_FROM_ENVIRONMENT, _FROM_FILE = "env:", "file:"
_SETTINGS = "CALLFOLD_"
AGENT_PATTERN = r"[0-9A-Za-z_.@-]{1,64}"
NUMBER_PATTERN = r"\+?[0-9*#]{1,32}"
DIAL_FIELDS = ("agent", "number", "queue_prefix", "reference")
"""The placeholders of `dial_url`."""
RECORDING_FIELDS = ("call_id", "guid", "request_id")
"""The placeholders of `recording_url`."""
_FIELD = re.compile(r"\{([^{}]*)\}")


def _placeholder_check(*known: str) -> Callable[[SecretStr], SecretStr]:
    """Create a validator of links that may contain these placeholders."""

    def check(template: SecretStr) -> SecretStr:
        link = template.get_secret_value()
        origin(link)
        login_of(link)
        unknown = [field for field in _FIELD.findall(link) if field not in known]
        if unknown:
            names = ", ".join(f"{{{field}}}" for field in known)
            # Braces can also be part of a password.
            shown = f" {{{unknown[0]}}}" if closest_name(unknown[0], known) else ""
            raise ValueError(f"unknown placeholder{shown}, known: {names}")
        return template

    return check


def _check_pattern(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression ({error})") from error
    return pattern


def _check_path(pattern: str) -> str:
    if not pattern.startswith("/"):
        raise ValueError(f'{pattern} does not begin with "/". Write a path such as "/recordings/*"')
    if any(character in pattern for character in "?#%") or ".." in pattern.split("/"):
        raise ValueError(f'{pattern} is not a plain path. Write it without query, "%" and "..", such as "/recordings/*"')
    return pattern


def _check_country(code: str) -> str:
    country = code.upper()
    if not is_country(country):
        hint = "Did you mean GB?" if country == "UK" else "Write its code of ISO 3166, such as DK"
        raise ValueError(f'"{code[:20]}" is not a country. {hint}')
    return country


class _Options(BaseModel):
    """The keys of a source that `Source` has unchanged."""

    dial_url: Annotated[SecretStr, AfterValidator(_placeholder_check(*DIAL_FIELDS)), AfterValidator(check_dial_login)] | None = (
        None
    )
    recording_url: Annotated[SecretStr, AfterValidator(_placeholder_check(*RECORDING_FIELDS))] | None = None
    recording_paths: tuple[Annotated[str, AfterValidator(_check_path)], ...] = ()
    country: Annotated[str, AfterValidator(_check_country)] | None = None
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
    outside_prefixes: tuple[Annotated[str, Field(pattern=r"^[0-9]{1,8}$")], ...] = ()
    allow_feature_codes: bool = False
    dials_per_day: Annotated[int, Field(gt=0)] | None = None


class _Section(_Options):
    """One `[sources.<name>]` table of the file."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    secret: SecretStr | None = None
    recording_origin: Annotated[SecretStr, AfterValidator(check_origin)] | None = None
    adapter: str | None = None  # default: the link that `callfold adapter-link` prints, with every placeholder

    @field_validator("secret", "adapter", "dial_url", "recording_url", "recording_origin", mode="before")
    @classmethod
    def _resolve(cls, written: object) -> object:
        """Read a credential from where `env:NAME` or `file:PATH` says it is."""
        if not isinstance(written, str):
            return written
        if written.startswith(_FROM_FILE):
            return _from_file(written)
        return _from_environment(written) if written.startswith(_FROM_ENVIRONMENT) else written or None


def _from_file(written: str) -> str:
    try:
        return read_credential(Path(written.removeprefix(_FROM_FILE)), written)
    except ConfigError as error:
        raise ValueError(str(error).removesuffix(".")) from error


def _from_environment(written: str) -> str:
    name = written.removeprefix(_FROM_ENVIRONMENT)
    if name.startswith(_SETTINGS):
        raise ValueError(f"{written} names a setting. Choose a variable name that does not begin with {_SETTINGS}")
    if not os.environ.get(name):
        raise ValueError(f"the environment variable {name} is not set")
    return os.environ[name]


class Source(_Options):
    """One FocalScope system. Its repr hides links that contain credentials."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    name: SourceName
    secret: SecretStr | None
    adapter: Adapter
    recording_origin: str | None = None
    recording_login: SecretStr | None = None


Sources = Mapping[SourceName, Source]


def load_sources(path: Path | None) -> Sources:
    """Read the sources file. Without one, return the source `default`, which has every placeholder and no secret.

    Raises:
        ConfigError: the file cannot be read, or a source is invalid; the message names source and key.
    """
    if path is None:
        return {DEFAULT_SOURCE: _parse_source(DEFAULT_SOURCE, {})}
    try:
        text = path.read_text("utf-8")
        written = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"Cannot read the sources file {path}: {error.strerror}. Check CALLFOLD_SOURCES.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"The sources file {path} is not valid TOML: {error}.") from error
    tables = written.get("sources")
    _refuse_outside(path, written, has_sources=isinstance(tables, dict) and bool(tables))
    if isinstance(tables, list):
        raise ConfigError(f"The sources file {path} has [[sources]], which is a list. Write a table like [sources.acme].")
    if not isinstance(tables, dict) or not tables:
        raise ConfigError(f"The sources file {path} has no source. Add a table like [sources.acme].")
    return {SourceName(name): _parse_source(SourceName(name), table) for name, table in tables.items()}


def _refuse_outside(path: Path, written: Mapping[str, object], *, has_sources: bool) -> None:
    """Refuse tables and keys that are meant for a source, but are not below `sources`.

    Raises:
        ConfigError: there is one; the message says where it belongs.
    """
    for name, value in written.items():
        if name == "sources":
            continue
        if closest_name(name, ["sources"]):
            raise ConfigError(
                f"The sources file {path} has a table [{name}...]. Did you mean [sources...], as in [sources.acme]?"
            )
        if isinstance(value, dict) and (not has_sources or not value.keys().isdisjoint(_Section.model_fields)):
            table = name if SOURCE_NAME.fullmatch(name) else "acme"
            raise ConfigError(f"The sources file {path} has a table [{name}]. Did you mean [sources.{table}]?")
        if name in _Section.model_fields:
            raise ConfigError(f"The sources file {path} has {name} in no table. Write it below a table like [sources.acme].")


def unknown_source_message(name: str, sources: Sources) -> str:
    """Return the error message for a source that is not configured."""
    return f"Unknown source {name}. Configured: {', '.join(sources)}. Check CALLFOLD_SOURCES."


def secret_variables(path: Path) -> list[str]:
    """Return the environment variables from which a valid sources file takes secrets and links."""
    tables = tomllib.loads(path.read_text("utf-8"))["sources"].values()
    values = [value for table in tables for value in table.values() if isinstance(value, str)]
    return [value.removeprefix(_FROM_ENVIRONMENT) for value in values if value.startswith(_FROM_ENVIRONMENT)]


def _parse_source(name: SourceName, table: object) -> Source:
    if not SOURCE_NAME.fullmatch(name):
        raise ConfigError(f"Invalid source name {name!r}: use at most 63 of a-z, 0-9, - and _, with a letter or digit first.")
    if not isinstance(table, dict) and name in _Section.model_fields:
        raise ConfigError(f"The key {name} is directly below [sources]. Write it below a table like [sources.acme].")
    if not isinstance(table, dict):
        raise ConfigError(f"Source {name} is not a table. Write [sources.{name}], and its keys below it.")
    try:
        section = _Section.model_validate(table)
        recording_origin, recording_login = _downloads(section)
        adapter = parse_link(section.adapter or make_link("http://localhost", name, None))
    except ValidationError as error:
        raise ConfigError(f"Source {name}, {validation_message(error, _Section.model_fields)}") from None
    except (ConfigError, ValueError) as error:
        raise ConfigError(f"Source {name}: {error}") from None
    if section.secret and adapter.secret and section.secret.get_secret_value() != adapter.secret:
        raise ConfigError(
            f"Source {name}: `secret` and the parameter `token` of `adapter` differ, so every callback would get 401. Remove one."
        )
    secret = section.secret or (SecretStr(adapter.secret) if adapter.secret else None)
    options = {option: getattr(section, option) for option in _Options.model_fields}
    return Source(
        name=name,
        secret=secret,
        adapter=adapter,
        recording_origin=recording_origin,
        recording_login=recording_login,
        **options,
    )


def _downloads(section: _Section) -> tuple[str | None, SecretStr | None]:
    """Return the origin of downloads, and the login for it.

    Raises:
        ValueError: two links have different logins, of which one would be ignored.
    """
    links = [link.get_secret_value() for link in (section.recording_origin, section.recording_url) if link]
    logins = {login for login in map(login_of, links) if login is not None}
    if len(logins) > 1:
        raise ValueError("recording_origin and recording_url have different users or passwords. Keep one")
    return (origin(links[0]) if links else None), (SecretStr(logins.pop()) if logins else None)
