"""What every command needs: running a coroutine, reading the settings, options that many commands have."""

from __future__ import annotations

import getpass
import os

import typer

from shared.config.settings import Settings
from shared.config.sources import Sources, unknown_source_message
from shared.domain.ids import SourceName
from shared.errors import ConfigError


def cli_user() -> str:
    """Name who types, for audit lines; a container's user has a number alone."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):
        return f"cli:{os.getuid()}"


def wanted_sources(settings: Settings, source: str | None) -> Sources:
    """Load the sources that are meant: the one that is named, or all.

    Raises:
        ConfigError: there is none of that name.
    """
    sources = settings.load_sources()
    if source is None:
        return sources
    if source not in sources:
        raise ConfigError(unknown_source_message(source, sources))
    return {SourceName(source): sources[SourceName(source)]}


def tell_if_unknown(settings: Settings, source: str | None) -> None:
    """Say that a source is not configured, where what is kept can be of one that once was."""
    sources = settings.load_sources()
    if source is not None and source not in sources:
        typer.echo(
            f"callfold: {unknown_source_message(source, sources)} Only what is kept of earlier times can be found.", err=True
        )
