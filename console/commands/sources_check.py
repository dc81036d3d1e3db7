"""`callfold sources check`: checks a sources file, and prints what it would change."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import orjson

from console.counts import counted
from console.safe_text import plain
from shared.config.secret_strength import check_source_secrets
from shared.config.settings import Settings
from shared.config.source_changes import SourceChanges, changes_between
from shared.config.sources import load_sources
from shared.config.sources_file import SourcesFile
from shared.errors import ConfigError
from shared.exit_codes import EXIT_CONFIG, EXIT_OK


def check_file(settings: Settings, path: Path, *, as_json: bool) -> int:
    """Check a file as ingress would, and print what differs from the file of `CALLFOLD_SOURCES`.

    Raises:
        ConfigError: the file has a fault, unless `as_json`: then that is printed.
    """
    try:
        sources = SourcesFile(path, partial(check_source_secrets, settings), is_argument=True).read()
    except ConfigError as error:
        if not as_json:
            raise
        sys.stdout.write(orjson.dumps({"file": str(path), "valid": False, "problem": str(error)}).decode() + "\n")
        return EXIT_CONFIG
    changes, problem = SourceChanges(), ""
    try:
        changes = changes_between(load_sources(settings.sources_file), sources)
    except ConfigError as error:
        problem = str(error)
    if as_json:
        body = {"file": str(path), "valid": True, "sources": [*sources], "compared": not problem}
        body |= {"added": changes.added, "changed": changes.changed, "removed": changes.removed}
        sys.stdout.write(orjson.dumps(body).decode() + "\n")
        return EXIT_OK
    sys.stdout.write(f"{path} is valid: {counted(len(sources), 'source')}.\n")
    if problem:
        sys.stderr.write(f"callfold: it was not compared. {plain(problem)}\n")
    else:
        sys.stdout.writelines(f"{plain(line)}\n" for line in _lines(changes))
    return EXIT_OK


def _lines(changes: SourceChanges) -> Iterable[str]:
    yield from (f"+ {name}: added" for name in changes.added)
    for name, keys in changes.changed.items():
        yield from (f"~ {name}: {key} {what if what == 'changed' else f'changed, {what}'}" for key, what in keys.items())
    yield from (f"- {name}: removed, so its callbacks get 404" for name in changes.removed)
    if not changes:
        yield "It changes nothing."
