"""`python -m ingress` runs one ingress process."""

from __future__ import annotations

import sys

from ingress.service import serve
from shared.runtime.process import run_process

if __name__ == "__main__":
    sys.exit(run_process("ingress", serve))
