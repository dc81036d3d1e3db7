"""For a worker under test: while a file says so, what it writes for the archive meets a full disk (`/dev/full`)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

_FLAG = Path(os.environ["FULL_WHILE_THERE_IS"])
_open = Path.open


def _open_or_full(path: Path, mode: str = "r", *more: Any, **named: Any) -> Any:  # noqa: ANN401
    if path.parent.name == ".incomplete" and _FLAG.exists():
        path.symlink_to("/dev/full")
        mode = mode.replace("x", "w")
    return _open(path, mode, *more, **named)


setattr(Path, "open", _open_or_full)  # noqa: B010 - replaces a method with overloads, of which a worker uses one
