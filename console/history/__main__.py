"""`python -m console.history` runs the history process."""

from __future__ import annotations

import sys

from console.history.service import serve
from shared.runtime.process import run_process

if __name__ == "__main__":
    sys.exit(run_process("history", serve))
