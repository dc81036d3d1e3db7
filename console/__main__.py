"""`python -m console` runs one console process."""

from __future__ import annotations

import sys

from console.service import serve
from shared.runtime.process import run_process

if __name__ == "__main__":
    sys.exit(run_process("console", serve))
