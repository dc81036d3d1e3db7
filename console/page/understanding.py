"""What an adapter link is understood to mean, in words: each parameter, and what the link leaves out at which price."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from shared.domain.adapter_link import Adapter, Placeholder
from shared.masking import mask_value

_MEANINGS: Mapping[str, str] = {
    Placeholder.CALL_TYPE_NAME: "whose leg it is, by name",
    Placeholder.CALL_TYPE_CODE: "whose leg it is, by code",
    Placeholder.EVENT_NAME: "what happened, by name",
    Placeholder.EVENT_CODE: "what happened, by code",
    Placeholder.CALL_ID: "the leg",
    Placeholder.REQUEST_ID: "the call that both legs belong to",
    Placeholder.GUID: "the recording's name",
    Placeholder.STARTED: "when the leg began to ring",
    Placeholder.PICKED_UP: "when it was picked up",
    Placeholder.ENDED: "when it ended",
    Placeholder.TOTAL_WAIT_MS: "how long it rang",
    Placeholder.IS_ANSWERED: "whether it was answered",
    Placeholder.IS_RECORDED: "whether it was recorded",
    Placeholder.RECORDING_URL: "where the recording is",
    Placeholder.CALLER_ID: "the caller's number",
    Placeholder.DID: "the line that was called",
    Placeholder.AGENT_EXTENSION: "the agent's extension",
    Placeholder.AGENT: "the agent's name",
    Placeholder.USER_ID: "the user's id",
    Placeholder.USER_NAME: "the user's name",
    Placeholder.QUEUE: "the last queue",
}
_PRICES: Mapping[Placeholder, str] = {
    Placeholder.REQUEST_ID: "the two legs of a dialed call cannot be tied together: each is a call of its own",
    Placeholder.STARTED: "times of receipt are used for the start, network delay included",
    Placeholder.PICKED_UP: "times of receipt are used for the pickup, network delay included",
    Placeholder.ENDED: "times of receipt are used for the end, network delay included",
    Placeholder.IS_RECORDED: "no recording is ever fetched",
    Placeholder.GUID: "recordings are filed by CallID, not by FocalScope's own name",
    Placeholder.RECORDING_URL: "recordings are fetched by the source's recording_url template alone",
    Placeholder.CALLER_ID: "calls that were not dialed by Callfold cannot be found by the caller's number",
    Placeholder.AGENT_EXTENSION: "calls that were not dialed by Callfold cannot be found by the agent",
}


@dataclass(frozen=True, slots=True)
class Meaning:
    """One parameter of a link."""

    parameter: str
    placeholder: str
    meaning: str
    known: bool


@dataclass(frozen=True, slots=True)
class Understanding:
    """A link in words. `lacks` pairs each placeholder that is missed with what follows from that."""

    meanings: tuple[Meaning, ...]
    constants: tuple[tuple[str, str], ...]
    has_secret: bool
    lacks: tuple[tuple[str, str], ...]

    @property
    def unknown(self) -> tuple[Meaning, ...]:
        return tuple(meaning for meaning in self.meanings if not meaning.known)


def understand(adapter: Adapter) -> Understanding:
    """Put an adapter into words; its secret is only told to be there."""
    told = adapter.meanings.items()
    present = set(adapter.meanings.values())
    return Understanding(
        meanings=tuple(Meaning(name, to, _MEANINGS.get(to, "kept under this name"), to in _MEANINGS) for name, to in told),
        constants=tuple((name, mask_value(name, value)) for name, value in adapter.constants.items()),
        has_secret=adapter.secret is not None,
        lacks=tuple((placeholder, price) for placeholder, price in _PRICES.items() if placeholder not in present),
    )
