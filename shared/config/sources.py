"""The sources file: the FocalScope systems that send callbacks, with their secrets, adapter links and recording links."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ConfigDict, SecretStr, ValidationError

from shared.config.links import login_of, origin
from shared.config.messages import closest_name, validation_messages
from shared.config.source_options import FROM_ENVIRONMENT, FROM_FILE, Options, Section, references
from shared.domain.adapter_link import Adapter, make_link, parse_link
from shared.domain.ids import SOURCE_NAME, SourceName
from shared.errors import ConfigError

DEFAULT_SOURCE = SourceName("default")
# Thousands of sources. A file that is none could take 90 times its size of memory, in every process that watches it.
_MAX_LENGTH = 2 << 20
_FAULTS_SHOWN = 10


class Source(Options):
    """One FocalScope system. Its repr hides links that contain credentials."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    name: SourceName
    secret: SecretStr | None
    previous_secrets: tuple[SecretStr, ...] = ()
    adapter: Adapter
    recording_origin: str | None = None
    recording_login: SecretStr | None = None

    @property
    def secrets(self) -> tuple[str, ...]:
        """Return every secret that ingress accepts, the current one first; none if the source has no secret."""
        current = () if self.secret is None else (self.secret.get_secret_value(),)
        return (*current, *(each.get_secret_value() for each in self.previous_secrets))


Sources = Mapping[SourceName, Source]


class SourceError(ConfigError):
    """A fault of one source; `key` is the key at fault, or ''. `others` are more faults of the same source."""

    def __init__(self, message: str, source: str, key: str = "") -> None:
        super().__init__(message)
        self.source = source
        self.key = key
        self.others: Sequence[SourceError] = ()


def load_sources(path: Path | None) -> Sources:
    """Read the sources file. Without one, return the source `default`, which has every placeholder and no secret.

    Raises:
        ConfigError: the file cannot be read, or a source is invalid; the message names source and key.
    """
    if path is None:
        return {DEFAULT_SOURCE: _parse_source(DEFAULT_SOURCE, {})}
    return parse_sources(path, read_text(path))


def read_text(path: Path, *, remedy: str = "Check CALLFOLD_SOURCES.") -> str:
    """Read the sources file as text. An error about its path ends with `remedy`.

    Raises:
        ConfigError: it cannot be read, is too large, or is not UTF-8.
    """
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_MAX_LENGTH + 1)
    except OSError as error:
        raise ConfigError(f"Cannot read the sources file {path}: {error.strerror}. {remedy}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"The sources file {path} is not valid TOML: {error}.") from error
    if len(text) > _MAX_LENGTH:
        raise ConfigError(f"The sources file {path} is larger than {_MAX_LENGTH >> 20} MiB. {remedy}")
    return text


def parse_sources(path: Path, text: str) -> Sources:
    """Parse the text of a sources file; `path` names it in errors.

    Raises:
        ConfigError: it is not TOML, or a source is invalid; the message names source, key and line of each fault.
    """
    try:
        written = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:  # the latter for very many brackets
        raise ConfigError(f"The sources file {path} is not valid TOML: {error}.") from error
    tables = written.get("sources")
    _refuse_outside(path, written, has_sources=isinstance(tables, dict) and bool(tables))
    if isinstance(tables, list):
        raise ConfigError(f"The sources file {path} has [[sources]], which is a list. Write a table like [sources.acme].")
    if not isinstance(tables, dict) or not tables:
        raise ConfigError(f"The sources file {path} has no source. Add a table like [sources.acme].")
    sources: dict[SourceName, Source] = {}
    faults: list[SourceError] = []
    for name, table in tables.items():
        try:
            sources[SourceName(name)] = _parse_source(SourceName(name), table)
        except SourceError as error:
            faults += [error, *error.others]
    if faults:
        raise ConfigError(_faults_message(path, text, faults)) from faults[0]
    return sources


def _faults_message(path: Path, text: str, faults: Sequence[SourceError]) -> str:
    sentences: list[str] = []
    for fault in faults[:_FAULTS_SHOWN]:
        line = _line_of(text, fault)
        sentences.append(f"{fault} See line {line} of {path}." if line else str(fault))
    if (more := len(faults) - _FAULTS_SHOWN) > 0:
        sentences.append(f"More faults: {more}.")
    return " ".join(sentences)


def _line_of(text: str, error: SourceError) -> int | None:
    """Return the line of the key at fault, or else of its table. None for a spelling that is not searched for."""
    header = re.compile(rf"""\s*\[\s*sources\s*\.\s*["']?{re.escape(error.source)}["']?\s*\]""")
    key = re.compile(rf"""\s*["']?{re.escape(error.key)}["']?\s*=""")
    of_table: int | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        if header.match(line):
            of_table = number
        elif of_table is not None and line.lstrip().startswith("["):
            break
        elif of_table is not None and error.key and key.match(line):
            return number
    return of_table


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
        if isinstance(value, dict) and (not has_sources or not value.keys().isdisjoint(Section.model_fields)):
            table = name if SOURCE_NAME.fullmatch(name) else "acme"
            raise ConfigError(f"The sources file {path} has a table [{name}]. Did you mean [sources.{table}]?")
        if name in Section.model_fields:
            raise ConfigError(f"The sources file {path} has {name} in no table. Write it below a table like [sources.acme].")


def unknown_source_message(name: str, sources: Sources) -> str:
    """Return the error message for a source that is not configured."""
    return f"Unknown source {name}. Configured: {', '.join(sources)}. Check CALLFOLD_SOURCES."


def secret_variables(path: Path) -> list[str]:
    """Return the environment variables from which a valid sources file takes secrets and links."""
    return _references(path.read_text("utf-8"), FROM_ENVIRONMENT)


def credential_files(text: str) -> list[str]:
    """Return the paths of the files from which the text of a sources file takes secrets and links; none if it is no TOML."""
    try:
        return _references(text, FROM_FILE)
    except (tomllib.TOMLDecodeError, AttributeError, KeyError, RecursionError):
        return []


def _references(text: str, kind: str) -> list[str]:
    tables = tomllib.loads(text)["sources"].values()
    return [each for table in tables for value in table.values() for each in references(value, kind)]


def _parse_source(name: SourceName, table: object) -> Source:
    if not SOURCE_NAME.fullmatch(name):
        problem = f"Invalid source name {name!r}: use at most 63 of a-z, 0-9, - and _, with a letter or digit first."
        raise SourceError(problem, name)
    if not isinstance(table, dict) and name in Section.model_fields:
        raise ConfigError(f"The key {name} is directly below [sources]. Write it below a table like [sources.acme].")
    if not isinstance(table, dict):
        raise ConfigError(f"Source {name} is not a table. Write [sources.{name}], and its keys below it.")
    try:
        section = Section.model_validate(table)
    except ValidationError as error:
        messages = validation_messages(error, Section.model_fields)
        first, *others = (SourceError(f"Source {name}, {message}", name, key) for key, message in messages.items())
        first.others = others
        raise first from None
    try:
        recording_origin, recording_login = _downloads(section)
    except (ConfigError, ValueError) as error:
        raise SourceError(f"Source {name}: {str(error).removesuffix('.')}.", name, "recording_url") from None
    try:
        adapter = parse_link(section.adapter or make_link("http://localhost", name, None))
    except (ConfigError, ValueError) as error:
        raise SourceError(f"Source {name}: {error}", name, "adapter") from None
    options = {option: getattr(section, option) for option in Options.model_fields}
    return Source(
        name=name,
        secret=_secret(name, section, adapter),
        previous_secrets=section.previous_secrets,
        adapter=adapter,
        recording_origin=recording_origin,
        recording_login=recording_login,
        **options,
    )


def _secret(name: SourceName, section: Section, adapter: Adapter) -> SecretStr | None:
    """Return the secret of a source.

    Raises:
        SourceError: the table has two, or previous secrets that are none.
    """
    if section.secret and adapter.secret and section.secret.get_secret_value() != adapter.secret:
        differ = "`secret` and the parameter `token` of `adapter` differ, so every callback would get 401. Remove one"
        raise SourceError(f"Source {name}: {differ}.", name, "secret")
    secret = section.secret or (SecretStr(adapter.secret) if adapter.secret else None)
    previous = [each.get_secret_value() for each in section.previous_secrets]
    problem = ""
    if previous and secret is None:
        problem = "the source has no `secret`, so ingress accepts any. Set one, or remove this key"
    elif secret is not None and secret.get_secret_value() in previous:
        problem = "an entry is the current secret. Remove it from the list"
    elif len(set(previous)) < len(previous):
        problem = "a secret is in the list twice. Remove one of them"
    if problem:
        raise SourceError(f"Source {name}, previous_secrets: {problem}.", name, "previous_secrets")
    return secret


def _downloads(section: Section) -> tuple[str | None, SecretStr | None]:
    """Return the origin of downloads, and the login for it.

    Raises:
        ValueError: two links have different logins, of which one would be ignored.
    """
    links = [link.get_secret_value() for link in (section.recording_origin, section.recording_url) if link]
    logins = {login for login in map(login_of, links) if login is not None}
    if len(logins) > 1:
        raise ValueError("recording_origin and recording_url have different users or passwords. Keep one")
    return (origin(links[0]) if links else None), (SecretStr(logins.pop()) if logins else None)
