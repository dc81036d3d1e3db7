"""For a worker under test: while a file says so, what it writes for the archive meets a full disk (`/dev/full`)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

VARIABLE = "FULL_WHILE_THERE_IS"
_open = Path.open


def begin() -> None:
    """Fill the disk of this process while the file is there that its environment names, if it names one."""
    if VARIABLE not in os.environ:
        return
    flag = Path(os.environ[VARIABLE])

    def open_or_full(path: Path, mode: str = "r", *more: Any, **named: Any) -> Any:  # noqa: ANN401
        if path.parent.name == ".incomplete" and flag.exists():
            path.symlink_to("/dev/full")
            mode = mode.replace("x", "w")
        return _open(path, mode, *more, **named)

    setattr(Path, "open", open_or_full)  # noqa: B010 - replaces a method with overloads, of which a worker uses one
