"""An adapter link explained: the meaning of each parameter, and the consequence of each one that is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from shared.domain.adapter_link import Adapter, Placeholder
from shared.masking import mask_value

_MEANINGS: Mapping[str, str] = {
    Placeholder.CALL_TYPE_NAME: "the side of the leg, by name",
    Placeholder.CALL_TYPE_CODE: "the side of the leg, by code",
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
    Placeholder.RECORDING_URL: "the URL of the recording",
    Placeholder.CALLER_ID: "the caller's number",
    Placeholder.DID: "the line that was called",
    Placeholder.AGENT_EXTENSION: "the agent's extension",
    Placeholder.AGENT: "the agent's name",
    Placeholder.USER_ID: "the user's id",
    Placeholder.USER_NAME: "the user's name",
    Placeholder.QUEUE: "the last queue",
}
_CONSEQUENCES: Mapping[Placeholder, str] = {
    Placeholder.REQUEST_ID: "the two legs of a dialed call cannot be matched, so each leg becomes a separate call",
    Placeholder.STARTED: "the start is the time of receipt, network delay included",
    Placeholder.PICKED_UP: "the pickup is the time of receipt, network delay included",
    Placeholder.ENDED: "the end is the time of receipt, network delay included",
    Placeholder.IS_RECORDED: "no recording is ever downloaded",
    Placeholder.GUID: "recordings are named by CallID instead of FocalScope's own name",
    Placeholder.RECORDING_URL: "recordings are downloaded only from the source's recording_url template",
    Placeholder.CALLER_ID: "calls that Callfold did not dial cannot be found by the caller's number",
    Placeholder.AGENT_EXTENSION: "calls that Callfold did not dial cannot be found by agent",
}


@dataclass(frozen=True, slots=True)
class ParameterMeaning:
    """One parameter of a link."""

    parameter: str
    placeholder: str
    meaning: str
    known: bool


@dataclass(frozen=True, slots=True)
class LinkExplanation:
    """An explained link. `missing` pairs each missing placeholder with its consequence."""

    parameters: tuple[ParameterMeaning, ...]
    constants: tuple[tuple[str, str], ...]
    has_secret: bool
    missing: tuple[tuple[str, str], ...]


def explain_link(adapter: Adapter) -> LinkExplanation:
    """Explain an adapter link. Of its secret, only the presence is shown."""
    placeholders = adapter.meanings
    present = set(placeholders.values())
    return LinkExplanation(
        parameters=tuple(
            ParameterMeaning(
                parameter, placeholder, _MEANINGS.get(placeholder, "kept in the record's fields"), placeholder in _MEANINGS
            )
            for parameter, placeholder in placeholders.items()
        ),
        constants=tuple((name, mask_value(name, value)) for name, value in adapter.constants.items()),
        has_secret=adapter.secret is not None,
        missing=tuple((name, consequence) for name, consequence in _CONSEQUENCES.items() if name not in present),
    )
