"""Reports to the supervisor of a process, such as systemd, that it serves. The protocol is that of `sd_notify`."""

from __future__ import annotations

import os
import socket

from shared.log import get_logger

log = get_logger(__name__)

_VARIABLE = "NOTIFY_SOCKET"
_TIMEOUT_S = 1


def report_ready() -> None:
    """Report that the ports are open and the work has begun. Without a supervisor that asks for it, do nothing.

    It does not wait for RabbitMQ and Redis: a process that waits for them works, and a restart would not help it.
    """
    address = os.environ.get(_VARIABLE, "")
    if not address:
        return
    if address.startswith("@"):  # a name outside the file system
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wire:
            wire.settimeout(_TIMEOUT_S)
            wire.sendto(b"READY=1", address)
    except OSError as error:  # the supervisor stops the process if it needs the report
        log.warning("ready_not_reported", error=type(error).__name__, detail=error.strerror)
