"""The sources file: which FocalScope systems call back, with what secret, adapter and recording links."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from shared.adapter import Adapter, make_link, parse_link
from shared.errors import ConfigError
from shared.ids import SourceName

DEFAULT_SOURCE = SourceName("default")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_FROM_ENVIRONMENT = "env:"


def origin(url: str) -> str:
    """Reduce a URL to scheme, host and port."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url.partition('?')[0]} is not an http or https URL with a host")
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


class _Section(BaseModel):
    """One `[sources.<name>]` table as written."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    secret: SecretStr | None = None
    adapter: str | None = None  # every placeholder, under the names of `callfold adapter-link`
    dial_url: SecretStr | None = None
    recording_url: SecretStr | None = None
    recording_origin: Annotated[str, AfterValidator(origin)] | None = None
    record_legs: frozenset[Literal["agent", "dialed"]] = Field(default=frozenset({"agent", "dialed"}))

    @field_validator("secret", mode="after")
    @classmethod
    def _resolve(cls, secret: SecretStr | None) -> SecretStr | None:
        written = secret.get_secret_value() if secret else ""
        if not written.startswith(_FROM_ENVIRONMENT):
            return secret if written else None
        name = written.removeprefix(_FROM_ENVIRONMENT)
        if not os.environ.get(name):
            raise ValueError(f"the environment variable {name} is not set")
        return SecretStr(os.environ[name])


class Source(BaseModel):
    """One FocalScope system. Links that carry credentials never show in a repr."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    name: SourceName
    secret: SecretStr | None
    adapter: Adapter
    dial_url: SecretStr | None
    recording_url: SecretStr | None
    recording_origin: str | None
    record_legs: frozenset[str]


Sources = Mapping[SourceName, Source]


def load_sources(path: Path | None) -> Sources:
    """Read the sources file; without one there is the source `default`, without secret, with the vendor's parameter names.

    Raises:
        ConfigError: the file cannot be read, or a source in it cannot work; the sentence names the source and the key.
    """
    if path is None:
        return {DEFAULT_SOURCE: _source(DEFAULT_SOURCE, {})}
    try:
        text = path.read_text("utf-8")
        tables = tomllib.loads(text).get("sources")
    except OSError as error:
        raise ConfigError(f"The sources file {path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"The sources file {path} is not valid TOML: {error}.") from error
    if not isinstance(tables, dict) or not tables:
        raise ConfigError(f"The sources file {path} names no source: expected a table like [sources.acme].")
    return {SourceName(name): _source(SourceName(name), table) for name, table in tables.items()}


def _source(name: SourceName, table: object) -> Source:
    if not _NAME.fullmatch(name):
        raise ConfigError(f"The source name {name!r} must be lower-case letters, digits, - or _ (at most 63).")
    try:
        section = _Section.model_validate(table)
        recording_origin = section.recording_origin
        if recording_origin is None and section.recording_url:
            recording_origin = origin(section.recording_url.get_secret_value())
        adapter = parse_link(section.adapter or make_link("http://localhost", "any", None))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"Source {name}: {where}: {first['msg']}.") from None
    except (ConfigError, ValueError) as error:
        raise ConfigError(f"Source {name}: {error}") from None
    secret = section.secret or (SecretStr(adapter.secret) if adapter.secret else None)
    return Source(
        name=name,
        secret=secret,
        adapter=adapter,
        dial_url=section.dial_url,
        recording_url=section.recording_url,
        recording_origin=recording_origin,
        record_legs=frozenset(section.record_legs),
    )
