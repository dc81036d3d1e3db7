"""An adapter link explained: the meaning of each parameter, and the consequence of each one that is missing.

A link as FocalScope called it, with values instead of placeholders, is explained too: what is read, and what is ignored and why.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import SecretStr

from console.ignored_values import why_ignored
from shared.config.messages import closest_name
from shared.config.sources import Sources
from shared.domain.adapter_link import Adapter, Placeholder, take_secret
from shared.domain.callback import parse_callback
from shared.domain.ids import SourceName
from shared.masking import MASK, mask_value

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
    Placeholder.ENDED: "the end is the time of receipt, network delay included, and how long a missed phone rang can be unknown",
    Placeholder.IS_RECORDED: "no recording is ever downloaded",
    Placeholder.GUID: "recordings are named by CallID instead of FocalScope's own name",
    Placeholder.RECORDING_URL: "recordings are downloaded only from the source's recording_url template",
    Placeholder.CALLER_ID: "calls that Callfold did not dial cannot be found by the caller's number",
    Placeholder.AGENT_EXTENSION: "calls that Callfold did not dial cannot be found by agent",
}


@dataclass(frozen=True, slots=True)
class ParameterMeaning:
    """One parameter of a link. `hint` is the placeholder that was probably meant, if this one is undocumented."""

    parameter: str
    placeholder: str
    meaning: str
    known: bool
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class LinkExplanation:
    """An explained link.

    Attributes:
        constants: name, masked value, and the placeholder that the value probably should be.
        missing: each missing placeholder with its consequence.
    """

    parameters: tuple[ParameterMeaning, ...]
    constants: tuple[tuple[str, str, str | None], ...]
    has_secret: bool
    missing: tuple[tuple[str, str], ...]


def explain_link(adapter: Adapter) -> LinkExplanation:
    """Explain an adapter link. Of its secret, only the presence is shown."""
    placeholders = adapter.meanings
    present = set(placeholders.values())
    return LinkExplanation(
        parameters=tuple(
            ParameterMeaning(
                parameter,
                placeholder,
                _MEANINGS.get(placeholder, "kept in the record's fields"),
                placeholder in _MEANINGS,
                None if placeholder in _MEANINGS else closest_name(placeholder, list(map(str, _MEANINGS))),
            )
            for parameter, placeholder in placeholders.items()
        ),
        constants=tuple((name, mask_value(name, value), _meant(value)) for name, value in adapter.constants.items()),
        has_secret=adapter.secret is not None,
        missing=tuple((name, consequence) for name, consequence in _CONSEQUENCES.items() if name not in present),
    )


def secret_problem(link: str, sources: Sources) -> str | None:
    """Return what is wrong with the path or `token` of a pasted link; None if its callbacks have the current secret."""
    path, _, query = link.partition("?")
    name = SourceName(path.rstrip("/").rpartition("/")[2].lower())
    source, (token, _) = sources.get(name), take_secret(query)
    if source is None:
        return f"The path of the link ends in no configured source, so its callbacks get 404. Configured: {', '.join(sources)}."
    if source.secret is None or _is_same(token, source.secret):
        return None
    if any(_is_same(token, previous) for previous in source.previous_secrets):
        return (
            f"The token is a previous secret of {name}, which is accepted until it is removed from `previous_secrets`. "
            f"Compare with `callfold adapter-link {name}`."
        )
    if token is None:
        return f"The link has no token, so its callbacks get 401. Compare with `callfold adapter-link {name}`."
    owner = next((f" It is the one of {other.name}." for other in sources.values() if _is_same(token, other.secret)), "")
    return f"The token is not the secret of {name}, so its callbacks get 401.{owner} Compare with `callfold adapter-link {name}`."


def _is_same(token: str | None, secret: SecretStr | None) -> bool:
    given = (token or "").encode("utf-8", "surrogatepass")
    return secret is not None and hmac.compare_digest(given, secret.get_secret_value().encode("utf-8", "surrogatepass"))


def _meant(constant: str) -> str | None:
    """Return the placeholder that a constant is without its double braces, such as `{CallUUID}`."""
    inner = constant.strip("{}[]<>$%# ").casefold()
    return next((str(placeholder) for placeholder in _MEANINGS if placeholder.casefold() == inner), None)


@dataclass(frozen=True, slots=True)
class CallbackExplanation:
    """An explained callback.

    Attributes:
        values: the placeholder of each value that is used, the masked value, and its meaning.
        ignored: the placeholder of each value that is not used as it was sent, the masked value, and the reason in words.
    """

    call: str
    leg: str
    event: str
    values: tuple[tuple[str, str, str], ...]
    ignored: tuple[tuple[str, str, str], ...]


def explain_callback(adapter: Adapter, query: str) -> CallbackExplanation:
    """Explain the query of a callback of a source with this adapter. Timestamps are not compared with a time of receipt.

    Raises:
        InvalidCallbackError: the callback cannot be folded.
    """
    callback = parse_callback(adapter, take_secret(query)[1])
    used = {
        Placeholder.CALL_ID: callback.call_id,
        Placeholder.REQUEST_ID: callback.request_id,
        Placeholder.GUID: callback.guid,
        Placeholder.IS_RECORDED: "yes" if callback.recorded else None,
        **callback.extras,
    }
    return CallbackExplanation(
        call=f"call-{callback.call_id}" if callback.request_id is None else str(callback.request_id),
        leg=callback.call_type,
        event=callback.event,
        values=tuple(
            (name, _masked(name, str(value)), _MEANINGS.get(name, "kept in the record's fields"))
            for name, value in used.items()
            if value is not None
        ),
        ignored=tuple((name, _masked(name, value), why_ignored(reason)) for name, value, reason in callback.ignored),
    )


def _masked(placeholder: str, value: str) -> str:
    return MASK if placeholder == Placeholder.RECORDING_URL else mask_value(placeholder, value)
