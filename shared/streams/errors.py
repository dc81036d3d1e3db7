"""The error of a command that cannot connect. Hints name it, and must not import RabbitMQ's client for that."""

from __future__ import annotations

from shared.errors import CallfoldError


class NotConnectedError(CallfoldError):
    """RabbitMQ cannot be reached or refuses the connection, so the command gives up."""


class NotPermittedError(NotConnectedError):
    """RabbitMQ does not permit its user what the connection is for. Another user may be permitted."""
