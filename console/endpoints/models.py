"""Endpoints as JSON: what the API takes and returns. Credentials go in, and never come out."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from console.history.attempts import Attempt
from shared.config.endpoint_options import MAX_FILTERS
from shared.config.endpoints import ENDPOINT_NAME

Secret = Annotated[str, Field(min_length=1, max_length=200)]


class EndpointSettings(BaseModel):
    """The settings of an endpoint, all of them: what is left out gets its default."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    url: Annotated[str, Field(min_length=1, max_length=2000)] = Field(
        description="Where events are posted. A viewer key sees its scheme and host only."
    )
    filter: Annotated[list[Annotated[str, Field(min_length=1, max_length=255)]], Field(min_length=1, max_length=MAX_FILTERS)] = (
        Field(default=["call.#"], description="Topic patterns, of which one must match.")
    )
    where: Annotated[str, Field(min_length=1, max_length=1000)] | None = Field(
        default=None, description="A condition on the fields of an event, such as `talk_seconds > 60`."
    )
    headers: Annotated[dict[str, str | None], Field(max_length=20)] = Field(
        default={}, description="Fixed headers. Their values are never returned; null keeps the present value."
    )
    networks: Annotated[list[Annotated[str, Field(max_length=50)]], Field(max_length=50)] = Field(
        default=[], description="Networks that may be reached, such as `10.0.0.0/8`. Default: public addresses."
    )
    order: Literal["none", "call"] = Field(default="none", description="`call`: the events of a call in their order.")
    enabled: bool = Field(default=True, description="Whether events are delivered.")
    max_in_flight: Annotated[int, Field(ge=1, le=100)] = Field(default=8, description="Requests at a time.")
    timeout_s: Annotated[float, Field(ge=0.1, le=60)] = Field(default=15.0, description="Time for one request.")


class GivenEndpoint(EndpointSettings):
    """The body of `PUT /endpoints/{name}`."""

    secret: Secret | None = Field(
        default=None,
        description="Signing secret: `whsec_` and 24 to 64 bytes in base64. Without it the present one stays, or one is made.",
    )


class NewEndpoint(GivenEndpoint):
    """The body of `POST /endpoints`."""

    name: Annotated[str, Field(pattern=f"^{ENDPOINT_NAME.pattern}$")] = Field(description="Name, which never changes.")


class Rotation(BaseModel):
    """The body of `POST /endpoints/{name}/secret`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    secret: Secret | None = Field(default=None, description="The new secret. Without it one is made.")


class SecretView(BaseModel):
    """A secret that is set, without the secret."""

    fingerprint: str = Field(description="First characters of its SHA-256, to compare it with that of the receiver.")


class DisabledView(BaseModel):
    """Why the forwarder has disabled an endpoint."""

    at: str
    detail: str


class EndpointView(BaseModel):
    """An endpoint: its settings and its state."""

    name: str
    origin: Literal["api", "file"] = Field(description="An endpoint of the `file` is changed there.")
    file: str | None = Field(description="The file that it is in; null if the API manages it.")
    settings: EndpointSettings = Field(description="May be sent back with PUT, unless a viewer key has read it.")
    secret: SecretView
    previous_secrets: list[SecretView] = Field(description="They sign too, until they are removed.")
    is_active: bool = Field(description="Whether events are delivered: it is enabled, and has not answered 410.")
    disabled: DisabledView | None = Field(description="Set if it has answered 410 Gone.")
    waiting: int | None = Field(description="Events that wait for it, also for another attempt; null if unknown.")
    has_forwarder: bool | None = Field(description="Whether a forwarder consumes its events; null if unknown.")
    last_attempt: Attempt | None = Field(description="The last attempt in the history; null if there is none.")


class NewSecretView(BaseModel):
    """An endpoint whose secret was set."""

    endpoint: EndpointView
    new_secret: str | None = Field(description="The secret, if the console has made it. It is shown this once.")


class EndpointList(BaseModel):
    """All endpoints."""

    endpoints: list[EndpointView]
    problem: str | None = Field(description="Why the list may be outdated; null if it is not.")


class AttemptList(BaseModel):
    """Attempts at an endpoint, newest first."""

    attempts: list[Attempt]
    next: str | None = Field(description="The `before` of the next page; null on the last page.")


class TrialView(BaseModel):
    """The result of a test event."""

    delivered: bool = Field(description="Whether the answer was 2xx.")
    status: int | None = Field(description="HTTP status; null if there was no answer.")
    error: str | None = Field(description="What failed, such as a refused address; null if the event was delivered.")
    seconds: float
    answer: str = Field(description="First bytes of the answer, with credentials masked.")
    webhook_id: str = Field(description="The header `webhook-id` of the request.")
