"""Start of the command line: CPU seconds (user and system) of the whole process, the least of several runs.

    python bench/start_up.py [--rounds 10]

`python -c pass` runs in turn with the commands, so that a slow minute of the machine shows.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
from pathlib import Path

PYTHON, CALLFOLD = sys.executable, str(Path(sys.executable).with_name("callfold"))
NO_REDIS = {"CALLFOLD_REDIS_URL": "redis://127.0.0.1:1/0"}  # a refused connection costs next to nothing
TAB = {"_CALLFOLD_COMPLETE": "complete_bash", "COMP_WORDS": "callfold de", "COMP_CWORD": "1"}
# Name, command, settings, goal in CPU seconds.
STARTS: tuple[tuple[str, tuple[str, ...], dict[str, str], float], ...] = (
    ("python -c pass", (PYTHON, "-c", "pass"), {}, float("inf")),
    ("callfold --version", (CALLFOLD, "--version"), {}, 0.2),
    ("callfold --help", (CALLFOLD, "--help"), {}, 0.2),
    ("Tab", (CALLFOLD,), TAB, 0.2),
    ("callfold calls", (CALLFOLD, "calls"), NO_REDIS, 0.6),
)


def cpu_seconds(command: tuple[str, ...], settings: dict[str, str]) -> float:
    """Run a command; returns the CPU seconds that it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env=os.environ | settings, check=False, capture_output=True, timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(rounds: int) -> bool:
    """Print the least CPU seconds of each start; returns whether all goals are met."""
    print("\nStart of the command line, CPU seconds")
    least = {name: float("inf") for name, *_ in STARTS}
    for _ in range(rounds):
        for name, command, settings, _ in STARTS:
            least[name] = min(least[name], cpu_seconds(command, settings))
    for name, _, _, goal in STARTS:
        verdict = "" if goal == float("inf") else f", goal {goal} {'met' if least[name] < goal else 'MISSED'}"
        print(f"  {name:<20} {least[name]:.3f} s{verdict}", flush=True)
    return all(least[name] < goal for name, _, _, goal in STARTS)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="rounds (default: %(default)s)")
    sys.exit(0 if measure(parser.parse_args().rounds) else 1)
