"""The file `env` of a running system, a shell script: the settings of that system, and `callfold` on the PATH."""

from __future__ import annotations

import os
import shlex
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from shared import crash_points as crash
from shared.config.settings import PREFIX
from shared.config.sources import secret_variables

# Of one process each: another that took them would stand in its way.
_OF_ONE_PROCESS = frozenset({PREFIX + "METRICS_PORT", PREFIX + "METRICS_HOST", crash.VARIABLE})
_PATHS = frozenset(PREFIX + name for name in ("SOURCES", "SPOOL_DIR", "RECORDING_DIR", "ARCHIVE_IDENTITY"))
_ONLY_THE_OWNER = 0o600


def exported(chosen: Mapping[str, str]) -> dict[str, str]:
    """Collect the settings of a system: those of the environment, the variables its sources name, and what was chosen here."""
    values = {name: value for name, value in os.environ.items() if name.startswith(PREFIX) and name not in _OF_ONE_PROCESS}
    if sources := values.get(PREFIX + "SOURCES"):
        values |= {name: os.environ[name] for name in secret_variables(Path(sources)) if name in os.environ}
    values |= chosen
    return {name: str(Path(value).absolute()) if name in _PATHS else value for name, value in sorted(values.items())}


def write_exports(path: Path, chosen: Mapping[str, str]) -> None:
    """Write the script. It holds credentials: only its owner can read it."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _ONLY_THE_OWNER)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        os.fchmod(handle, _ONLY_THE_OWNER)  # one that was there already may have been open to others
        file.writelines(f"export {name}={shlex.quote(value)}\n" for name, value in exported(chosen).items())
        file.write(search_path(Path(sysconfig.get_path("scripts"))))


def search_path(scripts: Path) -> str:
    """Return the shell command that puts `callfold` on the PATH once, or nothing if it is not installed in `scripts`."""
    if not (scripts / "callfold").exists():
        return ""
    quoted = shlex.quote(str(scripts))
    return f'case ":$PATH:" in *:{quoted}:*) ;; *) export PATH={quoted}:"$PATH" ;; esac\n'
