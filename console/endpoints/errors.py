"""Why a change of endpoints is refused. Nothing was changed then."""

from __future__ import annotations

from shared.errors import CallfoldError


class EndpointError(CallfoldError):
    """A change that is refused."""


class UnknownEndpointError(EndpointError):
    """There is no endpoint of this name."""


class NoHistoryError(EndpointError):
    """Attempts are in the history, and there is none."""


class InvalidEndpointError(EndpointError):
    """A setting is invalid; `parameter` names it."""

    def __init__(self, parameter: str, problem: str) -> None:
        self.parameter = parameter
        super().__init__(problem)


class EndpointConflictError(EndpointError):
    """The name is taken, or the endpoint is one of the file, which only an editor of that file can change."""


class EndpointChangedError(EndpointError):
    """The endpoint is no longer the one that the client has read."""
