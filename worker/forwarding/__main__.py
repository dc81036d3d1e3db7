"""`python -m worker.forwarding` runs one forwarder process."""

from __future__ import annotations

import sys

from shared.runtime.process import run_process
from worker.forwarding.service import serve

if __name__ == "__main__":
    sys.exit(run_process("forward", serve))
