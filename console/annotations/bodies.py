"""What a client sends to annotate a call: the body of each type of annotation, as models from which the JSON Schemas are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError

from console.validation import first_mistake
from shared.domain.annotation import MAX_BY_CHARACTERS, AnnotationType
from shared.domain.ids import CALL_ID, GUID

_TEXT, _LONG = 16 << 10, 64 << 10
_NOT_JSON = "The body is not JSON."
_CLOSED = ConfigDict(extra="forbid", frozen=True)
_TIME = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z$"

Short = Annotated[str, Field(min_length=1, max_length=128)]
Text = Annotated[str, Field(max_length=_TEXT)]
Seconds = Annotated[float, Field(ge=0, le=1_000_000, strict=True, allow_inf_nan=False)]
By = Annotated[
    str | None,
    Field(
        default=None, min_length=1, max_length=MAX_BY_CHARACTERS, description="Program or person. Default: the name of the key."
    ),
]


class Segment(BaseModel):
    """A part of a transcript."""

    model_config = _CLOSED

    start: Seconds = Field(description="Seconds from the beginning of the recording.")
    end: Seconds = Field(description="Seconds from the beginning of the recording.")
    speaker: Short | None = Field(default=None, description="`agent`, `dialed`, or any other name.")
    text: Text


class Transcript(BaseModel):
    """A conversation as text."""

    model_config = _CLOSED

    text: str = Field(min_length=1, description="The whole text.")
    language: str | None = Field(
        default=None, pattern=r"^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8}){0,8}$", description="BCP 47, e.g. da-DK."
    )
    call_id: str | None = Field(
        default=None, pattern=f"^{CALL_ID.pattern}$", description="CallID of the leg that was transcribed."
    )
    guid: str | None = Field(default=None, pattern=f"^{GUID.pattern}$", description="GUID of the recording.")
    engine: Short | None = Field(default=None, description="The program or model, with its version.")
    segments: list[Segment] | None = Field(default=None, description="The text with times, in order.")


class Disposition(BaseModel):
    """The result of a conversation, in your own codes."""

    model_config = _CLOSED

    code: Short = Field(examples=["sold"])
    label: Text | None = Field(default=None, description="The code for people.")
    text: Text | None = Field(default=None, description="A remark.")


class Consent(BaseModel):
    """Permission of a party, or its refusal."""

    model_config = _CLOSED

    status: Literal["granted", "denied", "withdrawn"]
    purposes: list[Short] | None = Field(default=None, max_length=16, description="What for, such as `recording`.")
    party: Short | None = Field(default=None, description="`agent`, `dialed`, or any other name.")
    method: Short | None = Field(default=None, description="How it was given, such as `spoken`.")
    expires_at: str | None = Field(default=None, pattern=_TIME, description="RFC 3339 UTC.")
    text: Text | None = Field(default=None, description="The words, or a remark.")


class Note(BaseModel):
    """A remark of a person."""

    model_config = _CLOSED

    text: str = Field(min_length=1, max_length=_LONG)


class NewTranscript(BaseModel):
    """A transcript for a call."""

    model_config = _CLOSED

    type: Literal["transcript"]
    body: Transcript
    by: By


class NewDisposition(BaseModel):
    """A disposition for a call."""

    model_config = _CLOSED

    type: Literal["disposition"]
    body: Disposition
    by: By


class NewConsent(BaseModel):
    """A consent for a call."""

    model_config = _CLOSED

    type: Literal["consent"]
    body: Consent
    by: By


class NewNote(BaseModel):
    """A note for a call."""

    model_config = _CLOSED

    type: Literal["note"]
    body: Note
    by: By


class AnnotationRequest(RootModel[Annotated[NewTranscript | NewDisposition | NewConsent | NewNote, Field(discriminator="type")]]):
    """An annotation for a call: its type, and a body of that type."""


class _Envelope(BaseModel):
    model_config = _CLOSED

    type: Literal["transcript", "disposition", "consent", "note"]
    body: dict[str, Any]
    by: By


_BODIES: Mapping[AnnotationType, type[BaseModel]] = {
    AnnotationType.TRANSCRIPT: Transcript,
    AnnotationType.DISPOSITION: Disposition,
    AnnotationType.CONSENT: Consent,
    AnnotationType.NOTE: Note,
}


class InvalidAnnotationError(Exception):
    """A request that is not an annotation. `parameter` names what is wrong, and the text says how."""

    def __init__(self, parameter: str | None, sentence: str) -> None:
        self.parameter = parameter
        super().__init__(sentence)


@dataclass(frozen=True, slots=True)
class NewAnnotation:
    """A valid request. `by` is '' if the client did not name itself."""

    type: AnnotationType
    body: Mapping[str, Any]
    by: str = ""


def parse_annotation(text: bytes) -> NewAnnotation:
    """Read a request from JSON.

    Raises:
        InvalidAnnotationError: it is no JSON, or has an unknown or invalid value.
    """
    try:
        return new_annotation(orjson.loads(text))
    except orjson.JSONDecodeError:
        raise InvalidAnnotationError("request", _NOT_JSON) from None


def new_annotation(request: object) -> NewAnnotation:
    """Check a request.

    Raises:
        InvalidAnnotationError: it has an unknown or invalid value.
    """
    try:
        envelope = _Envelope.model_validate(request)
    except ValidationError as error:
        raise InvalidAnnotationError(*first_mistake(error, _Envelope)) from None
    kind = AnnotationType(envelope.type)
    try:
        body = _BODIES[kind].model_validate(envelope.body)
    except ValidationError as error:
        name, sentence = first_mistake(error, _BODIES[kind])
        raise InvalidAnnotationError(f"body.{name}", f"body.{sentence}") from None
    return NewAnnotation(kind, body.model_dump(mode="json", exclude_none=True), envelope.by or "")
