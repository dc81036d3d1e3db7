"""Adapter links: the link pasted into FocalScope gives the meaning of each query parameter of a callback.

A FocalScope URL adapter is a link whose parameter values are placeholders, such as `{{CallID}}`. A parameter can have any
name; its placeholder gives the meaning (vendor articles "Integration - Call API" and "Integration - Call Events").
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import parse_qsl, quote, unquote, unquote_plus, unquote_to_bytes, urlsplit

from shared.errors import ConfigError

SECRET_PARAMETER = "token"  # noqa: S105 - the parameter's name, not a secret
_SHORTEST_HIDDEN = 8
# The parameter `token` in every spelling that `unquote` reads as that name.
_SECRET_PART = re.compile(rb"(?:t|%74)(?:o|%6[Ff])(?:k|%6[Bb])(?:e|%65)(?:n|%6[Ee])(?:=(.*))?\Z", re.DOTALL)
# More than a callback may have. It bounds the work for a request whose secret is not known yet.
_MAX_PARTS = 256


class Placeholder(StrEnum):
    """Every placeholder in the vendor's documentation, in the order of a link made by `callfold adapter-link`."""

    CALL_TYPE_NAME = "CallTypeName"
    CALL_TYPE_CODE = "CallTypeCode"
    EVENT_NAME = "DialApiEventName"
    EVENT_CODE = "DialApiEventCode"
    CALL_ID = "CallID"
    REQUEST_ID = "DialApiRequestID"
    GUID = "CallUUID"
    STARTED = "StartTimestampUTC"
    PICKED_UP = "PickupTimestampUTC"
    ENDED = "EndTimestampUTC"
    TOTAL_WAIT_MS = "TotalWaitTimeMs"
    IS_ANSWERED = "IsCallAnswered"
    IS_RECORDED = "IsCallRecorded"
    RECORDING_URL = "RecordingURL"
    CALLER_ID = "CallerID"
    DID = "DID"
    AGENT_EXTENSION = "ResponderAgentExt"
    AGENT = "ResponderAgent"
    USER_ID = "ResponderUserID"
    USER_NAME = "ResponderUserName"
    QUEUE = "LastQueueName"


TIMESTAMPS: Mapping[str, str] = {
    Placeholder.STARTED.value: "start",
    Placeholder.PICKED_UP.value: "pickup",
    Placeholder.ENDED.value: "end",
}
"""Placeholders of timestamps, each with what happened to the leg then."""

PARAMETER_NAMES: Mapping[Placeholder, str] = {
    Placeholder.CALL_TYPE_NAME: "CallType",
    Placeholder.EVENT_NAME: "Event",
    Placeholder.EVENT_CODE: "EventCode",
    Placeholder.REQUEST_ID: "RequestID",
    Placeholder.GUID: "Guid",
}
"""Parameter names of the vendor's sample that differ from the name of the placeholder."""

SAMPLE_LINK = (
    "https://test/identity.asp?CallType={{CallTypeName}}&Event={{DialApiEventName}}&CallID={{CallID}}"
    "&RequestID={{DialApiRequestID}}&EventCode={{DialApiEventCode}}&IsCallRecorded={{IsCallRecorded}}&Guid={{CallUUID}}"
)
"""The vendor's sample adapter. A source without an `adapter` accepts every placeholder, see `make_link`."""

_PATH = re.compile(r"/callbacks/([^/]+)/?$")
_PLACEHOLDER = re.compile(r"\{\{\s*([A-Za-z][A-Za-z0-9_]*)\s*\}\}")


@dataclass(frozen=True, slots=True)
class Adapter:
    """Meaning of each query parameter of a link.

    Attributes:
        meanings: parameter name to placeholder name, unknown placeholders included.
        constants: parameters with a fixed value, without the secret.
        secret: the constant parameter `token`, if the link has one.
        order: names of all parameters in the order of the link, without the secret.
        source: the source that the path names, as in `/callbacks/acme`; None if the path has another form.
        folded_meanings: the meanings by case-folded parameter name, without names that differ in letter case alone.
    """

    meanings: Mapping[str, str]
    constants: Mapping[str, str] = field(default_factory=dict)
    secret: str | None = field(default=None, repr=False)
    order: tuple[str, ...] = ()
    source: str | None = field(default=None, compare=False)
    folded_meanings: Mapping[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names = [name.strip().casefold() for name in (*self.meanings, *self.constants)]
        folded = {name.strip().casefold(): meaning for name, meaning in self.meanings.items()}
        unique = {name: meaning for name, meaning in folded.items() if names.count(name) == 1}
        object.__setattr__(self, "folded_meanings", unique)

    def meaning(self, name: str) -> str | None:
        """Return the meaning of a decoded parameter name in any letter case, also with blanks or what is left of `&amp;`."""
        return self.meanings.get(name) or self.folded_meanings.get(tidy_name(name).casefold())

    def parameter(self, placeholder: str) -> str | None:
        """Return the name of the parameter that carries a placeholder, for error messages."""
        return next((name for name, meaning in self.meanings.items() if meaning == placeholder), None)

    def name_of(self, placeholder: str) -> str:
        """Return the name of the parameter that carries a placeholder, or else that of the placeholder."""
        return self.parameter(placeholder) or placeholder


def tidy_name(name: str) -> str:
    """Return a decoded parameter name without the blanks around it, and without what is left of `&amp;` or a second `?`."""
    return name.strip(" \t\ufeff").removeprefix("amp;").lstrip("? ").strip()


def parse_link(link: str) -> Adapter:
    """Parse an adapter link.

    Raises:
        ConfigError: the link has no query, has a parameter twice or mixed with text, or lacks a mandatory placeholder.
    """
    try:
        parts = urlsplit(link.strip())
        pairs = parse_qsl(parts.query, keep_blank_values=True)
    except ValueError as error:  # it can quote a user and password
        raise ConfigError("The adapter link is not a URL. Copy it from `callfold adapter-link`.") from error
    if not pairs:
        raise ConfigError("The adapter link has no parameters. Example: " + SAMPLE_LINK)
    meanings: dict[str, str] = {}
    constants: dict[str, str] = {}
    for name, value in pairs:
        if name in meanings or name in constants:
            raise ConfigError(f"The adapter link has the parameter {name} twice.")
        placeholder = _PLACEHOLDER.fullmatch(value.strip())
        if placeholder:
            meanings[name] = placeholder[1]
        elif _PLACEHOLDER.search(value):
            raise ConfigError(f"The adapter link's parameter {name} mixes text and placeholder. Use one parameter for each.")
        else:
            constants[name] = value
    _require(meanings)
    secret, order = constants.pop(SECRET_PARAMETER, None), tuple(name for name, _ in pairs if name != SECRET_PARAMETER)
    path = _PATH.search(parts.path)
    return Adapter(meanings, constants, secret=secret, order=order, source=unquote(path[1]) if path else None)


def _require(meanings: Mapping[str, str]) -> None:
    present = set(meanings.values())
    needed: tuple[tuple[Placeholder, ...], ...] = (
        (Placeholder.CALL_TYPE_NAME, Placeholder.CALL_TYPE_CODE),
        (Placeholder.EVENT_NAME, Placeholder.EVENT_CODE),
        (Placeholder.CALL_ID,),
    )
    missing = [" or ".join(f"{{{{{p}}}}}" for p in choice) for choice in needed if not present.intersection(choice)]
    if missing:
        raise ConfigError(f"The adapter link lacks {', '.join(missing)}. Without it, a callback cannot be assigned to a call.")
    doubled = sorted({p for p in present if p in set(Placeholder) and list(meanings.values()).count(p) > 1})
    if doubled:
        raise ConfigError(f"The adapter link has the placeholder {doubled[0]} in more than one parameter.")


def make_link(base_url: str, source: str, secret: str | None) -> str:
    """Return the link to paste into FocalScope, with every documented placeholder and the secret, if there is one."""
    parts = [f"{SECRET_PARAMETER}={quote(secret, safe='')}"] if secret else []
    parts += [f"{PARAMETER_NAMES.get(p, str(p))}={{{{{p}}}}}" for p in Placeholder]
    return f"{base_url.rstrip('/')}/callbacks/{quote(source)}?{'&'.join(parts)}"


def take_secret(query: str) -> tuple[str | None, str]:
    """Split a raw query string into the secret (the first `token`, decoded) and the rest, which is not changed."""
    if SECRET_PARAMETER not in query and "%" not in query:
        return None, query
    secret: str | None = None
    kept: list[str] = []
    for part in query.split("&"):
        name, _, value = part.partition("=")
        if name == SECRET_PARAMETER or ("%" in name and unquote_plus(name) == SECRET_PARAMETER):
            secret = unquote_plus(value) if secret is None else secret
        else:
            kept.append(part)
    return secret, "&".join(kept)


def find_secret(query: bytes) -> str | None:
    """Find what `take_secret` would take, among the first 256 parameters. For a long query this takes far less time."""
    for part in query.split(b"&", _MAX_PARTS)[:_MAX_PARTS]:
        match = _SECRET_PART.match(part)
        if match is not None:
            return unquote_to_bytes((match[1] or b"").replace(b"+", b" ")).decode("utf-8", "replace")
    return None


def is_hidden(secret: str) -> bool:
    """Return whether a secret is hidden in what is kept: a short one cannot be distinguished from other values."""
    return len(secret) >= _SHORTEST_HIDDEN
