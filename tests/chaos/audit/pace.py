"""How slow this machine is, as the run has measured it."""

from __future__ import annotations

import os

PACE = float(os.environ.get("TESTS_PACE") or 1)
