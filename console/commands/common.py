"""What several commands need: the user for audit lines, and the sources a command is about."""

from __future__ import annotations

import getpass
import os

import typer

from shared.config.settings import Settings
from shared.config.sources import Sources, unknown_source_message
from shared.domain.ids import CallKey, CallRef, SourceName
from shared.errors import ConfigError

_OF_RECORDING = "recording/"
"""What follows the call in the id of an event about a recording; in that of a call event, its revision follows."""


def cli_user() -> str:
    """Return the user for audit lines; in a container, a user may have only a number."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):
        return f"cli:{os.getuid()}"


def select_sources(settings: Settings, source: str | None) -> Sources:
    """Load the named source, or all sources.

    Raises:
        ConfigError: the source is not configured.
    """
    sources = settings.load_sources()
    if source is None:
        return sources
    if source not in sources:
        raise ConfigError(unknown_source_message(source, sources))
    return {SourceName(source): sources[SourceName(source)]}


def call_key(source: str, call: str | None) -> CallKey:
    """Read the name of a call in two words, or in one as `calls` and `tail` print it: `acme/513`, `acme/513/1`."""
    source, name = split_name(source, call)
    return CallKey(SourceName(source), CallRef(name or ""))


def split_name(source: str, what: str | None) -> tuple[str, str | None]:
    """Split a name that may be one word into its source and what follows: the call of `acme/513/1`, or a GUID."""
    source, _, name = source.strip().strip("/").partition("/")
    if what is not None:
        name = what.strip().removeprefix(f"{source}/")
    call, _, rest = name.partition("/")
    if rest.isdecimal() or rest.startswith(_OF_RECORDING):
        return source, call
    return source, name or what


def warn_if_unknown(settings: Settings, source: str | None) -> None:
    """Warn if the source is not configured (any more), for commands that also find its old data."""
    sources = settings.load_sources()
    if source is not None and source not in sources:
        typer.echo(f"callfold: {unknown_source_message(source, sources)} Only data stored earlier can be found.", err=True)
