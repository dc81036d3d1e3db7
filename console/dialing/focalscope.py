"""One request to FocalScope's dial API: check it, send it, parse the answer, classify failures.

A phone may be ringing as soon as the request is sent, so this module never retries. Source: the vendor's article
"Integration - Call API".
"""

from __future__ import annotations

import re
from enum import StrEnum
from types import TracebackType
from typing import Annotated, Self
from urllib.parse import quote

import aiohttp
from pydantic import BaseModel, ConfigDict, Field
from yarl import URL

from console.dialing.dial_answer import Answer, read_answer
from console.dialing.number_rules import has_feature_code, is_agent_denied, is_number_allowed
from shared.config.sources import Source, Sources, unknown_source_message
from shared.domain.ids import SourceName
from shared.errors import CallfoldError

_MAX_ANSWER_BYTES = 64 * 1024
_SUCCESS = range(200, 300)
# Statuses that prove FocalScope did not dial. Any other, such as a redirect or a proxy's time-out, may follow a dial.
_NOT_DIALED = frozenset({400, 401, 403, 404, 405, 410, 413, 414, 415, 422, 429})

Text = Annotated[str, Field(max_length=256)]


class DialRequest(BaseModel):
    """The agent, the number, and values of the client for the call's record."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = Field(description="Name of the source in the sources file.", examples=["acme"])
    agent: Text = Field(min_length=1, description="Extension of the agent.", examples=["1001"])
    number: Text = Field(min_length=1, description="Number to dial.", examples=["+4512345678"])
    queue_prefix: str | None = Field(
        default=None, pattern=r"^[0-9*#]{1,8}$", description="Prefix that selects an outbound queue."
    )
    reference: Text | None = Field(default=None, description="Your reference, copied to the call's record.", examples=["crm-42"])
    metadata: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")], Text] = Field(
        default_factory=dict, max_length=20, description="Your names and values, copied to the call's record."
    )

    def fields(self) -> dict[str, str]:
        """Return the request as the fields of a dial event."""
        fields = {
            "agent": self.agent,
            "number": self.number,
            "queue_prefix": self.queue_prefix or "",
            "reference": self.reference or "",
        }
        return fields | {f"metadata.{name}": value for name, value in self.metadata.items()}


class DialState(StrEnum):
    """The state of a dial request that has no RequestID."""

    REFUSED = "refused"  # no phone rings
    UNKNOWN = "unknown"  # a phone may be ringing


class DialError(CallfoldError):
    """A dial request that got no RequestID.

    Attributes:
        state: whether a phone may be ringing.
        status: the HTTP status for the client.
        title: the error as a sentence.
        parameter: the invalid parameter, if any.
    """

    def __init__(self, state: DialState, status: int, title: str, parameter: str | None = None) -> None:
        self.state = state
        self.status = status
        self.title = title
        self.parameter = parameter
        super().__init__(title)


def check_request(sources: Sources, request: DialRequest) -> Source:
    """Check a request against the rules of its source.

    Raises:
        DialError: the source does not allow it.
    """
    source = sources.get(SourceName(request.source))
    if source is None:
        raise DialError(DialState.REFUSED, 404, unknown_source_message(request.source, sources), "source")
    if source.dial_url is None:
        title = f"Source {source.name} has no dial_url. Set it under [sources.{source.name}] in the CALLFOLD_SOURCES file."
        raise DialError(DialState.REFUSED, 409, title, "source")
    for name, value, pattern in (
        ("agent", request.agent, source.agent_pattern),
        ("number", request.number, source.number_pattern),
    ):
        if not re.fullmatch(pattern, value):
            title = f"The {name} does not match {name}_pattern of [sources.{source.name}]: {pattern}"
            raise DialError(DialState.REFUSED, 400, title, name)
    if not source.allow_feature_codes:
        _refuse_feature_codes(source, request)
    if is_agent_denied(source, request.agent):
        title = f"Source {source.name} may not call this number as an agent. See its deny_numbers in the sources file."
        raise DialError(DialState.REFUSED, 403, title, "agent")
    if not is_number_allowed(source, request.number, request.queue_prefix or ""):
        title = f"Source {source.name} may not dial this number. See its allow_numbers and deny_numbers in the sources file."
        raise DialError(DialState.REFUSED, 403, title, "number")
    # An unchecked prefix could turn an allowed number into another one.
    is_limited = bool(source.queue_prefixes or source.allow_numbers or source.deny_numbers)
    if request.queue_prefix and is_limited and request.queue_prefix not in source.queue_prefixes:
        title = f"Source {source.name} may not dial with this queue_prefix. See its queue_prefixes in the sources file."
        raise DialError(DialState.REFUSED, 403, title, "queue_prefix")
    return source


def _refuse_feature_codes(source: Source, request: DialRequest) -> None:
    """Refuse `*` and `#`, except in a prefix that the source lists."""
    prefix = "" if request.queue_prefix in source.queue_prefixes else request.queue_prefix or ""
    for name, value in (("number", request.number), ("queue_prefix", prefix)):
        if has_feature_code(value):
            title = f"The {name} contains * or #, which can forward calls. Set allow_feature_codes of [sources.{source.name}]."
            raise DialError(DialState.REFUSED, 403, title, name)


def dial_link(template: str, request: DialRequest) -> str:
    """Fill the template `dial_url`. Every value is percent-encoded, so that none can add a parameter."""
    values = request.fields()
    return re.sub(r"\{(\w+)\}", lambda placeholder: quote(values[placeholder[1]], safe=""), template)


def parse_answer(status: int, answer: Answer) -> int:
    """Return the RequestID from FocalScope's answer.

    Raises:
        DialError: the answer has no RequestID, or more than one, or its status is that of a failure.
    """
    ids = answer.request_ids
    if status in _SUCCESS and len(ids) == 1:
        return ids[0]
    text = f': "{answer.text}"' if answer.text and not ids else ""
    if status in _NOT_DIALED:
        raise DialError(DialState.REFUSED, 502, f"FocalScope refused the request with status {status}{text}. Check dial_url.")
    named = f"RequestID {' and '.join(map(str, ids))}"
    if status not in _SUCCESS:
        title = f"FocalScope answered with status {status}{f' and {named}' if ids else text}. Check dial_url."
    elif ids:
        title = f"FocalScope's answer has no single RequestID: it has {named}. Check dial_url."
    elif answer.is_page:
        page = f"an HTML page{f' ({answer.text})' if answer.text else ''}"
        title = f"FocalScope answered with {page} instead of a RequestID. Check the credentials in dial_url."
    elif not answer.text:
        title = "FocalScope's answer is empty. Check dial_url."
    else:
        title = f"FocalScope's answer has no RequestID{text}. Check dial_url."
    raise DialError(DialState.UNKNOWN, 502, title)


class _NoAnswerError(CallfoldError):
    """The connection failed or was lost; see the cause."""


async def _never_resend(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Prevent aiohttp from resending a GET after a lost connection: a phone may be ringing."""
    try:
        return await handler(request)
    except (aiohttp.ClientError, TimeoutError) as error:
        raise _NoAnswerError(type(error).__name__) from error


class Dialer:
    """The HTTP client for dial requests. Each uses a new connection, and none is sent twice."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True, limit_per_host=50),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
            trust_env=False,
            # A wrong Content-Encoding must not cost the RequestID: the bytes show whether they are compressed.
            auto_decompress=False,
            headers={"Accept-Encoding": "identity"},
            middlewares=(_never_resend,),
        )
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._session is not None:
            await self._session.close()

    async def dial(self, source: Source, request: DialRequest) -> int:
        """Send a dial request once and return the RequestID.

        Raises:
            DialError: no RequestID; `state` says whether a phone may be ringing.
        """
        if self._session is None or source.dial_url is None:
            raise RuntimeError("The dialer is not open, or the source has no dial_url.")
        # Already encoded: aiohttp would change parts of it.
        link = URL(dial_link(source.dial_url.get_secret_value(), request), encoded=True)
        try:
            async with self._session.get(link, allow_redirects=False) as response:
                return parse_answer(response.status, read_answer(await _read_body(response), response.charset))
        except _NoAnswerError as error:
            raise self._dial_error(error.__cause__) from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._dial_error(error) from error

    def _dial_error(self, error: BaseException | None) -> DialError:
        if isinstance(error, aiohttp.ClientConnectorError):
            return DialError(DialState.REFUSED, 502, "FocalScope cannot be reached, so nothing was dialed. Check dial_url.")
        if isinstance(error, TimeoutError):
            return DialError(DialState.UNKNOWN, 504, f"FocalScope did not answer within {self._timeout_s:g} s.")
        return DialError(DialState.UNKNOWN, 504, "The connection to FocalScope was lost before it answered.")


async def _read_body(response: aiohttp.ClientResponse) -> bytes:
    """Read an answer to its end.

    Raises:
        DialError: it is longer than any answer to a dial request.
    """
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > _MAX_ANSWER_BYTES:
            limit = f"{_MAX_ANSWER_BYTES >> 10} KiB"
            raise DialError(DialState.UNKNOWN, 502, f"FocalScope's answer is longer than {limit}. Check dial_url.")
    return bytes(body)
