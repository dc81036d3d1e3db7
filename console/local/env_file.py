"""The `env` file of a running system: a shell script with its settings, which also puts `callfold` on the PATH."""

from __future__ import annotations

import os
import shlex
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from shared import crash_points as crash
from shared.config.environment import service_variables
from shared.config.settings import CREDENTIALS, PREFIX
from shared.config.sources import secret_variables

# Settings of a single process: with them, a second one would collide with the first or crash on purpose.
_PER_PROCESS = frozenset({PREFIX + "METRICS_PORT", PREFIX + "METRICS_HOST", crash.VARIABLE})
_PATHS = frozenset(
    [
        *(PREFIX + name for name in ("SOURCES", "SPOOL_DIR", "RECORDING_DIR", "ARCHIVE_IDENTITY", "SECRETS_DIR")),
        *(f"{name}_FILE" for name in CREDENTIALS),
    ]
)
_OWNER_ONLY = 0o600


def _settings_of(system: Mapping[str, str]) -> dict[str, str]:
    """Collect the settings of the environment, the variables its sources file names, and `system`, which takes precedence."""
    left_out = {*_PER_PROCESS, *service_variables(os.environ)}
    values = {name: value for name, value in os.environ.items() if name.startswith(PREFIX) and name not in left_out}
    if sources := values.get(PREFIX + "SOURCES"):
        values |= {name: os.environ[name] for name in secret_variables(Path(sources)) if name in os.environ}
    values |= system
    return {name: str(Path(value).absolute()) if name in _PATHS else value for name, value in sorted(values.items())}


def write_env_file(path: Path, system: Mapping[str, str]) -> None:
    """Write the script. Only its owner can read it, because it holds credentials."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _OWNER_ONLY)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        os.fchmod(handle, _OWNER_ONLY)  # an existing file may be readable by others
        file.writelines(f"export {name}={shlex.quote(value)}\n" for name, value in _settings_of(system).items())
        file.write(path_command(Path(sysconfig.get_path("scripts"))))


def path_command(scripts: Path) -> str:
    """Return the shell commands that put `callfold` on the PATH once, or nothing if it is not installed in `scripts`."""
    if not (scripts / "callfold").exists():
        return ""
    quoted = shlex.quote(str(scripts))
    lines = ('case ":$PATH:" in', f"    *:{quoted}:*) ;;", f'    *) export PATH={quoted}:"$PATH" ;;', "esac")
    return "".join(f"{line}\n" for line in lines)
