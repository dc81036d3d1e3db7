"""What a person can do about an error that a command ends with."""

from __future__ import annotations

from console.streams.connections import NotConnectedError
from shared.errors import BrokerUnavailableError, CallfoldError, HistoryUnavailableError, StoreUnavailableError

_SETTINGS: dict[type[CallfoldError], str] = {
    BrokerUnavailableError: "CALLFOLD_AMQP_URL",
    StoreUnavailableError: "CALLFOLD_REDIS_URL",
    HistoryUnavailableError: "CALLFOLD_HISTORY_URL",
}
_RESTARTED = "Was `callfold up` started again? Its servers have new ports: source the `env` file it names once more."


def advised(error: CallfoldError, *, in_doctor: bool = False) -> str:
    """Write the sentence of an error, and which setting says where the server is that is away."""
    if isinstance(error, NotConnectedError):  # its sentence names the setting: it is shown elsewhere too
        return f"{error} {_RESTARTED}"
    setting = _SETTINGS.get(type(error))
    if setting is None:
        return str(error)
    said = str(error).rstrip(".")
    if in_doctor:
        return f"{said}. See {setting}. {_RESTARTED}"
    return f"{said}. See {setting}, or run `callfold doctor`. {_RESTARTED}"
