"""Free ports for the processes of one machine."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

# Below what Linux (from 32768) and macOS (from 49152) use for outgoing connections.
PORTS = (20_000, 32_000)
_reserved: set[int] = set()


def free_port() -> int:
    """Return a port that is free now, that this process did not return before, and that the kernel gives to no connection."""
    while True:
        port = random.randrange(*PORTS)  # noqa: S311 - no secret
        if port in _reserved:
            continue
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            _reserved.add(port)
            return port
