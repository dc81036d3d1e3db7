"""`python -m worker` runs one worker process."""

from __future__ import annotations

import sys

from shared.runtime.process import run_process
from worker.service import serve

if __name__ == "__main__":
    sys.exit(run_process("worker", serve))
