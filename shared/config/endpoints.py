"""The endpoints of webhooks: where `callfold forward` posts events. From the file of `CALLFOLD_ENDPOINTS`, or by API."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Final, NewType

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    IPvAnyNetwork,
    SecretStr,
    ValidationError,
    field_validator,
)

from shared.config.endpoint_options import (
    DEFAULT_FILTER,
    Order,
    as_filters,
    check_filters,
    check_headers,
    check_previous,
    check_secret,
    check_url,
    check_where,
    needs_tls,
)
from shared.config.links import origin
from shared.config.messages import closest_name, validation_message
from shared.config.source_options import FROM_FILE, references, resolved
from shared.config.watched_file import WatchedFile
from shared.errors import ConfigError

EndpointName = NewType("EndpointName", str)
"""Name of an endpoint, such as `crm`. It is part of the names of queues."""

ENDPOINT_NAME = re.compile(r"[a-z0-9-]{1,40}")
# `forward.dead` and the streams are no queues of endpoints.
RESERVED_NAMES: Final = frozenset({"dead", "journal", "order"})
MAX_ENDPOINTS: Final = 100
_MAX_BYTES: Final = 1 << 20
_MIN_CREDENTIAL: Final = 6
# Of the parts of a path, shorter ones are words.
_MIN_TOKEN: Final = 16
_REMEDY: Final = "Check CALLFOLD_ENDPOINTS."


class Options(BaseModel):
    """The keys of an endpoint, in the file and in the API."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    url: Annotated[SecretStr, AfterValidator(check_url)]
    filter: Annotated[tuple[str, ...], BeforeValidator(as_filters), AfterValidator(check_filters)] = DEFAULT_FILTER
    where: Annotated[str, AfterValidator(check_where)] | None = None
    headers: Annotated[dict[str, SecretStr], AfterValidator(check_headers)] = Field(default_factory=dict)
    secret: Annotated[SecretStr, AfterValidator(check_secret)]
    previous_secrets: Annotated[tuple[SecretStr, ...], AfterValidator(check_previous)] = ()
    networks: tuple[IPvAnyNetwork, ...] = ()
    order: Order = Order.NONE
    enabled: bool = True
    max_in_flight: Annotated[int, Field(ge=1, le=100)] = 8
    timeout_s: Annotated[float, Field(ge=0.1, le=60)] = 15


class Endpoint(Options):
    """One receiver of events. Its repr hides URL, headers and secrets."""

    name: EndpointName

    @property
    def filters(self) -> tuple[str, ...]:
        """The topic patterns, of which one must match."""
        return self.filter

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every secret that signs, the current one first."""
        return tuple(each.get_secret_value() for each in (self.secret, *self.previous_secrets))

    @property
    def credentials(self) -> frozenset[str]:
        """Texts of a request that only the endpoint may know: secrets, values of headers, and path and query of the URL."""
        target = re.split(r"[/?]", self.url.get_secret_value().partition("://")[2], maxsplit=1)[1:]
        values = [value.get_secret_value().strip() for value in self.headers.values()]
        tokens = [token for value in values for token in value.split()]
        parts = [part for part in re.split(r"[/?&=]", "".join(target)) if len(part) >= _MIN_TOKEN]
        return frozenset(each for each in (*self.secrets, *values, *tokens, *target, *parts) if len(each) >= _MIN_CREDENTIAL)

    @property
    def shown_url(self) -> str:
        """The origin of the URL. Its path and query can be credentials."""
        return origin(self.url.get_secret_value())

    @property
    def url_digest(self) -> str:
        """A digest of the URL, which says whether it has changed without showing it."""
        return hashlib.sha256(self.url.get_secret_value().encode()).hexdigest()


class _Section(Options):
    """A table of the file, whose credentials may be `env:NAME` or `file:PATH`."""

    @field_validator("url", "secret", mode="before")
    @classmethod
    def _resolve(cls, written: object) -> object:
        return resolved(written) if isinstance(written, str) else written

    @field_validator("previous_secrets", mode="before")
    @classmethod
    def _resolve_each(cls, written: object) -> object:
        if not isinstance(written, list):
            return written
        return [resolved(each) if isinstance(each, str) else each for each in written]

    @field_validator("headers", mode="before")
    @classmethod
    def _resolve_values(cls, written: object) -> object:
        if not isinstance(written, dict):
            return written
        return {name: resolved(value) if isinstance(value, str) else value for name, value in written.items()}


Endpoints = Mapping[EndpointName, Endpoint]


def parse_endpoint(name: str, table: object, *, may_refer: bool = False) -> Endpoint:
    """Check one endpoint. With `may_refer`, its credentials may be in environment variables and files.

    Raises:
        ConfigError: it is invalid; the message names endpoint and key, and never quotes a value.
    """
    if not ENDPOINT_NAME.fullmatch(name):
        raise ConfigError(f"Invalid endpoint name {name[:60]!r}: use at most 40 of a-z, 0-9 and -.")
    if name in RESERVED_NAMES:
        raise ConfigError(f"Invalid endpoint name {name}: Callfold uses it for a queue. Choose another name.")
    if not isinstance(table, dict):
        raise ConfigError(f"Endpoint {name} is not a table. Write [endpoints.{name}], and its keys below it.")
    try:
        section = (_Section if may_refer else Options).model_validate(table)
    except ValidationError as error:
        raise ConfigError(f"Endpoint {name}, {validation_message(error, Options.model_fields)}") from None
    except ConfigError as error:
        raise ConfigError(f"Endpoint {name}: {error}") from None
    if needs_tls(section.url.get_secret_value()) and not section.networks:
        raise ConfigError(f"Endpoint {name}, url: must begin with https://. Only an endpoint with `networks` may do without TLS.")
    if len(set(secrets := [section.secret, *section.previous_secrets])) < len(secrets):
        raise ConfigError(f"Endpoint {name}, previous_secrets: a secret is there twice, or is the current one. Remove it.")
    return Endpoint(name=EndpointName(name), **{field: getattr(section, field) for field in Options.model_fields})


def parse_endpoints(path: Path, text: str) -> Endpoints:
    """Parse the text of an endpoints file, which may have no endpoint; `path` names it in errors.

    Raises:
        ConfigError: it is not TOML, or an endpoint is invalid; the message names endpoint and key.
    """
    try:
        written = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:  # the latter for very many brackets
        raise ConfigError(f"The endpoints file {path} is not valid TOML: {error}.") from error
    for key in written:
        if key != "endpoints":
            hint = "Did you mean [endpoints...]?" if closest_name(key, ["endpoints"]) else "Write a table like [endpoints.crm]."
            raise ConfigError(f"The endpoints file {path} has {key[:60]}. {hint}")
    tables = written.get("endpoints", {})
    if not isinstance(tables, dict):
        raise ConfigError(f"The endpoints file {path} has [[endpoints]], which is a list. Write a table like [endpoints.crm].")
    if len(tables) > MAX_ENDPOINTS:
        raise ConfigError(f"The endpoints file {path} has more than {MAX_ENDPOINTS} endpoints.")
    return {EndpointName(name): parse_endpoint(name, table, may_refer=True) for name, table in tables.items()}


def read_endpoints_text(path: Path) -> str:
    """Read the endpoints file as text.

    Raises:
        ConfigError: it cannot be read, is too large, or is not UTF-8.
    """
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"Cannot read the endpoints file {path}: {error.strerror}. {_REMEDY}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"The endpoints file {path} is not valid TOML: {error}.") from error
    if len(text) > _MAX_BYTES:
        raise ConfigError(f"The endpoints file {path} is larger than {_MAX_BYTES >> 20} MiB. {_REMEDY}")
    return text


class EndpointsFile(WatchedFile[Endpoints]):
    """The file that `CALLFOLD_ENDPOINTS` names, and the files of credentials that it names."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            path, read=partial(read_endpoints_text, path), referred=_credential_files, parse=partial(parse_endpoints, path)
        )


def _credential_files(text: str) -> list[str]:
    try:
        tables = tomllib.loads(text).get("endpoints", {}).values()
        values = [value for table in tables for value in table.values()]
    except (tomllib.TOMLDecodeError, AttributeError, RecursionError):
        return []
    nested = [each for value in values if isinstance(value, dict) for each in value.values()]
    return [path for value in (*values, *nested) for path in references(value, FROM_FILE)]
