"""`make chaos`: exit code 0 if every promise was kept, 1 if one was broken, 2 if the run itself failed."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from console.local import processes, stack
from shared.errors import CallfoldError, leaf_errors
from tests.chaos.disks import enter_namespace
from tests.chaos.holds import CommandFailedError
from tests.chaos.links import ROOT
from tests.chaos.options import OptionError, Options
from tests.chaos.run import RunFailedError, chaos
from tests.helpers.pace import LIMIT_S

_SHOWN = 10
_FIGURES = (
    ("callbacks", "callbacks sent"),
    ("accepted", "answered 200"),
    ("calls", "calls"),
    ("faults", "faults"),
    ("accepted_outside_faults", "share answered 200 outside faults"),
    ("longest_silence_s", "longest time without an answer, s"),
    ("longest_silence_one_node_down_s", "the same with one node of RabbitMQ down, s"),
    ("slowest_answer_s", "slowest answer, s"),
    ("recovery_p50_s", "recovery after a fault, median, s"),
    ("recovery_p99_s", "recovery after a fault, p99, s"),
    ("talk_not_compared", "talk time not compared: callbacks came late, as if a clock was set"),
    ("amended_in_known_limits", "closed early and amended, as documented"),
    ("recordings", "recordings in the archive"),
    ("kills", "workers killed"),
    ("kills_before_recovery", "of these from a loss to its recovery"),
    ("rebuilds_begun", "rebuilds begun"),
    ("rebuilds_finished", "rebuilds finished"),
    ("losses_in_a_row", "losses during the rebuild of another"),
    ("losses_unnoticed", "losses that no worker noticed, as nothing was lost"),
    ("holds", "holds"),
    ("held_recordings", "recordings that retention kept for a hold"),
    ("deleted", "recordings that retention deleted"),
)


async def _run(options: Options, directory: Path) -> Mapping[str, Any]:
    task = asyncio.current_task()
    if task is not None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await chaos(options, directory)


def _print(report: Mapping[str, Any], path: Path) -> None:
    for name, text in _FIGURES:
        if (value := report["figures"].get(name)) is None:
            continue
        sys.stdout.write(f"{text:45} {value:.3f}\n" if isinstance(value, float) else f"{text:45} {value}\n")
    for text in (*report["skipped"], *report["exits"]):
        sys.stdout.write(f"note: {text}\n")
    for kind, lines in report["violations"].items():
        sys.stdout.writelines(f"{kind}: {line}\n" for line in lines[:_SHOWN])
        if len(lines) > _SHOWN:
            sys.stdout.write(f"{kind}: and {len(lines) - _SHOWN} more\n")
    is_clean = not any(report["violations"].values())
    verdict = "nothing lost, spurious or wrong" if is_clean else "PROMISES WERE BROKEN"
    sys.stdout.write(f"{verdict}; report: {path}; repeat it with: {report['command']}\n")


def main() -> int:
    try:
        options = Options.from_environment()
    except OptionError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    processes._READY_TIMEOUT_S = stack._START_TIMEOUT_S = round(LIMIT_S)  # a slow start is no failure
    directory = Path(tempfile.mkdtemp(prefix="callfold-chaos-", dir=os.environ.get("CHAOS_DIRECTORY")))
    is_kept = bool(os.environ.get("CHAOS_KEEP"))
    try:
        report = asyncio.run(_run(options, directory))
    except (asyncio.CancelledError, KeyboardInterrupt):
        sys.stderr.write("chaos: interrupted\n")
        return 130
    except (CallfoldError, RunFailedError, CommandFailedError, ExceptionGroup) as error:
        is_kept = True
        causes = leaf_errors(error) if isinstance(error, ExceptionGroup) else [error]
        cause = "; ".join(str(each) or type(each).__name__ for each in causes)
        sys.stderr.write(f"chaos: {cause}; logs are in {directory}\n")
        return 2
    else:
        path = Path(os.environ.get("CHAOS_REPORT") or ROOT / "build" / f"chaos-{options.redis}-{options.seed}.json")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2))
        _print(report, path)
        is_clean = not any(report["violations"].values())
        if not is_clean:
            is_kept = True
            sys.stdout.write(f"logs are in {directory}\n")
        return 0 if is_clean else 1
    finally:
        if not is_kept:
            shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    enter_namespace([sys.executable, "-m", "tests.chaos"])
    sys.exit(main())
