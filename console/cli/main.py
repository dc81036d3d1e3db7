"""The command line `callfold`. Exit codes are 0 (done), 1 (failed), 2 (wrong usage or settings) and those a command documents."""

from __future__ import annotations

import errno
import gc
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.errors import CallfoldError, ConfigError, leaf_errors
from shared.exit_codes import EXIT_CONFIG, EXIT_FAILURE

if TYPE_CHECKING:
    import typer

    app: typer.Typer

_HELP_OPTIONS = {"-h", "--help"}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - `app`
    """Return `app`. It is imported late, because not every start needs it."""
    if name != "app":
        raise AttributeError(name)
    from console.cli.app import app as commands

    return commands


def _run_and_flush() -> None:
    try:
        if sys.argv[1:] == ["--version"]:
            from importlib.metadata import version

            sys.stdout.write(f"callfold {version('callfold')}\n")
            return
        from console.cli import quick_start

        is_completion = os.environ.get("_CALLFOLD_COMPLETE", "").endswith("_bash")  # which shows no help
        if _HELP_OPTIONS.intersection(sys.argv) or (len(sys.argv) == 1 and not is_completion):
            quick_start.import_help()
        run_app = globals().get("app") or __getattr__("app")
        run_app(prog_name="callfold")  # the same name under `python -m`
    finally:
        sys.stdout.flush()  # here, an error still has its sentence


def _full_disk(group: BaseExceptionGroup[OSError]) -> str:
    """Return the reason if what happened is that the output cannot be written; any other error is a fault and is raised."""
    for error in leaf_errors(group):
        if error.errno not in _FULL:
            raise error
    return str(leaf_errors(group)[0].strerror)


def _discard_output() -> None:
    """Let what is buffered go nowhere. The interpreter writes it at exit, and would fail again."""
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def main() -> None:
    """Run the command line; a CallfoldError becomes one sentence on stderr and an exit code."""
    gc.disable()  # until the command runs: imports create much that stays
    failures: list[CallfoldError] = []
    is_unread = False
    try:
        _run_and_flush()
    except* CallfoldError as group:
        failures = leaf_errors(group)
    except* BrokenPipeError:  # the reader of the output, such as `head`, has enough
        is_unread = True
    except* OSError as group:
        _discard_output()
        failures = [CallfoldError(f"Cannot write: {_full_disk(group)}.")]
    if is_unread:
        _discard_output()
        sys.exit(EXIT_FAILURE)
    if failures:
        from console.commands.hints import with_hint
        from console.safe_text import plain

        sys.stderr.write(f"callfold: {plain(with_hint(failures[0]))}\n")
        sys.exit(EXIT_CONFIG if isinstance(failures[0], ConfigError) else EXIT_FAILURE)
