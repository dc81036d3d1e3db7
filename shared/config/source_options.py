"""The keys of a `[sources.<name>]` table, and what each may be."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, IPvAnyNetwork, SecretStr, field_validator

from shared.archive.encryption import check_recipient
from shared.config.environment import read_credential
from shared.config.links import check_dial_login, check_origin, login_of, origin
from shared.config.messages import closest_name
from shared.errors import ConfigError
from shared.phone_numbers import is_country

FROM_ENVIRONMENT, FROM_FILE = "env:", "file:"
_SETTINGS = "CALLFOLD_"
AGENT_PATTERN = r"[0-9A-Za-z_.@-]{1,64}"
NUMBER_PATTERN = r"\+?[0-9*#]{1,32}"
_Side = Literal["agent", "dialed"]
BOTH_LEGS: frozenset[_Side] = frozenset({"agent", "dialed"})
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


class Options(BaseModel):
    """The keys of a source that `Source` has unchanged."""

    dial_url: Annotated[SecretStr, AfterValidator(_placeholder_check(*DIAL_FIELDS)), AfterValidator(check_dial_login)] | None = (
        None
    )
    recording_url: Annotated[SecretStr, AfterValidator(_placeholder_check(*RECORDING_FIELDS))] | None = None
    recording_paths: tuple[Annotated[str, AfterValidator(_check_path)], ...] = ()
    country: Annotated[str, AfterValidator(_check_country)] | None = None
    record_legs: frozenset[_Side] = Field(default=BOTH_LEGS)
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


class Section(Options):
    """One `[sources.<name>]` table of the file."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    secret: SecretStr | None = None
    previous_secrets: tuple[SecretStr, ...] = ()
    recording_origin: Annotated[SecretStr, AfterValidator(check_origin)] | None = None
    adapter: str | None = None  # default: the link that `callfold adapter-link` prints, with every placeholder

    @field_validator("secret", "adapter", "dial_url", "recording_url", "recording_origin", mode="before")
    @classmethod
    def _resolve(cls, written: object) -> object:
        return (resolved(written) or None) if isinstance(written, str) else written

    @field_validator("previous_secrets", mode="before")
    @classmethod
    def _resolve_each(cls, written: object) -> object:
        if not isinstance(written, list):
            return written
        if "" in written:
            raise ValueError("an entry is empty. Remove it, since it is no secret")
        return [resolved(each) if isinstance(each, str) else each for each in written]


def references(value: object, kind: str) -> list[str]:
    """Return what the value of a key refers to as `kind`, which is `env:` or `file:`: names of variables, or paths of files."""
    written = value if isinstance(value, list) else [value]
    return [each.removeprefix(kind) for each in written if isinstance(each, str) and each.startswith(kind)]


def resolved(written: str) -> str:
    """Read a credential from where `env:NAME` or `file:PATH` says it is.

    Raises:
        ValueError: there is none.
    """
    if written.startswith(FROM_FILE):
        return _from_file(written)
    return _from_environment(written) if written.startswith(FROM_ENVIRONMENT) else written


def _from_file(written: str) -> str:
    try:
        return read_credential(Path(written.removeprefix(FROM_FILE)), written)
    except ConfigError as error:
        raise ValueError(str(error).removesuffix(".")) from error


def _from_environment(written: str) -> str:
    name = written.removeprefix(FROM_ENVIRONMENT)
    if name.startswith(_SETTINGS):
        raise ValueError(f"{written} names a setting. Choose a variable name that does not begin with {_SETTINGS}")
    if not os.environ.get(name):
        raise ValueError(f"the environment variable {name} is not set")
    return os.environ[name]
