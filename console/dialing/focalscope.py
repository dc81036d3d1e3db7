"""One request to FocalScope's dial API: the link from the source's template, the answer understood, each failure by its name.

A phone may be ringing as soon as the request has left us: nothing here is ever tried again. Source: the vendor's article
"Integration - Call API".
"""

from __future__ import annotations

import re
from enum import StrEnum
from fnmatch import fnmatchcase
from types import TracebackType
from typing import Annotated, Self
from urllib.parse import quote

import aiohttp
from pydantic import BaseModel, ConfigDict, Field
from yarl import URL

from shared.config.sources import Source, Sources, unknown_source_message
from shared.domain.ids import SourceName
from shared.errors import CallfoldError

_ANSWER = re.compile(r'\s*\{\s*"?RequestID"?\s*:\s*"?(\d{1,18})"?\s*\}\s*')
_MAX_ANSWER_BYTES = 64 * 1024
_OK = 200
# Answers that only one who has not dialed gives. Any other, redirections and a proxy's time-out among them, may come after.
_REFUSALS = frozenset({400, 401, 403, 404, 405, 410, 413, 414, 415, 422, 429})

Text = Annotated[str, Field(max_length=256)]


class DialRequest(BaseModel):
    """Who is to be called, by which agent, and what the integration wants to find again in the call's record."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = Field(description="The source's name in the sources file.", examples=["acme"])
    agent: Text = Field(min_length=1, description="The agent's extension.", examples=["1001"])
    number: Text = Field(min_length=1, description="The number to dial.", examples=["+4512345678"])
    queue_prefix: str | None = Field(
        default=None, pattern=r"^[0-9*#]{1,8}$", description="Prefix that chooses an outbound queue."
    )
    reference: Text | None = Field(default=None, description="Of your own: it is in the call's record.", examples=["crm-42"])
    metadata: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")], Text] = Field(
        default_factory=dict, max_length=20, description="Names and values of your own: they are in the call's record."
    )

    def fields(self) -> dict[str, str]:
        """Write the request as the fields of a dial event."""
        told = {
            "agent": self.agent,
            "number": self.number,
            "queue_prefix": self.queue_prefix or "",
            "reference": self.reference or "",
        }
        return told | {f"metadata.{name}": value for name, value in self.metadata.items()}


class DialState(StrEnum):
    """What is known of a dial request that has no RequestID."""

    REFUSED = "refused"  # no phone rings
    UNKNOWN = "unknown"  # a phone may be ringing


class DialError(CallfoldError):
    """A dial request without RequestID: what is known, the HTTP status for the one who asked, a sentence."""

    def __init__(self, state: DialState, status: int, title: str, parameter: str | None = None) -> None:
        self.state = state
        self.status = status
        self.title = title
        self.parameter = parameter
        super().__init__(title)


def check(sources: Sources, request: DialRequest) -> Source:
    """Check a request against its source's rules.

    Raises:
        DialError: it may not be dialed; the parameter is named.
    """
    source = sources.get(SourceName(request.source))
    if source is None:
        raise DialError(DialState.REFUSED, 404, unknown_source_message(request.source, sources), "source")
    if source.dial_url is None:
        title = (
            f"Source {source.name} has no dial_url: set it under [sources.{source.name}] in the file that CALLFOLD_SOURCES names."
        )
        raise DialError(DialState.REFUSED, 409, title, "source")
    for name, value, pattern in (
        ("agent", request.agent, source.agent_pattern),
        ("number", request.number, source.number_pattern),
    ):
        if not re.fullmatch(pattern, value):
            title = f"The {name} does not match {name}_pattern of [sources.{source.name}]: {pattern}"
            raise DialError(DialState.REFUSED, 400, title, name)
    is_allowed = not source.allow_numbers or any(fnmatchcase(request.number, rule) for rule in source.allow_numbers)
    if not is_allowed or any(fnmatchcase(request.number, rule) for rule in source.deny_numbers):
        raise DialError(DialState.REFUSED, 403, f"Source {source.name} may not dial this number.", "number")
    # A free prefix would make another number of an allowed one.
    is_limited = bool(source.queue_prefixes or source.allow_numbers or source.deny_numbers)
    if request.queue_prefix and is_limited and request.queue_prefix not in source.queue_prefixes:
        title = f"Source {source.name} may not dial with this queue_prefix: see queue_prefixes in the sources file."
        raise DialError(DialState.REFUSED, 403, title, "queue_prefix")
    return source


def dial_link(template: str, request: DialRequest) -> str:
    """Fill the template `dial_url`; every value is percent-encoded, so that none can add a parameter."""
    values = request.fields()
    return re.sub(r"\{(\w+)\}", lambda found: quote(values[found[1]], safe=""), template)


def read_answer(status: int, body: str) -> int:
    """Find the RequestID in FocalScope's answer: `{RequestID:513}`, which is no JSON, or `{"RequestID":513}`.

    Raises:
        DialError: there is none.
    """
    found = _ANSWER.fullmatch(body)
    if status == _OK and found and int(found[1]):
        return int(found[1])
    if status != _OK:
        state = DialState.REFUSED if status in _REFUSALS else DialState.UNKNOWN
        raise DialError(state, 502, f"FocalScope answered with status {status}.")
    if body.lstrip()[:1] == "<":
        raise DialError(DialState.UNKNOWN, 502, "FocalScope answered with a page: are the credentials in dial_url right?")
    if not body.strip():
        raise DialError(DialState.UNKNOWN, 502, "FocalScope's answer was empty.")
    raise DialError(DialState.UNKNOWN, 502, "FocalScope's answer has no RequestID.")


class _NoAnswerError(CallfoldError):
    """The connection broke, or could not be made: the cause tells which."""


async def _once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Keep the library from sending a GET again whose connection broke: a phone may be ringing by then."""
    try:
        return await handler(request)
    except (aiohttp.ClientError, TimeoutError) as error:
        raise _NoAnswerError(type(error).__name__) from error


class Dialer:
    """The HTTP client of dial requests: each on a connection of its own, and none sent twice."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True, limit_per_host=50),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
            trust_env=False,
            middlewares=(_once,),
        )
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._session is not None:
            await self._session.close()

    async def dial(self, source: Source, request: DialRequest) -> int:
        """Ask once; returns the RequestID.

        Raises:
            DialError: with what is known of the phones.
        """
        if self._session is None or source.dial_url is None:
            raise RuntimeError("the dialer is not open, or the source cannot dial")
        # Encoded by us, once: the library would write some of it otherwise.
        link = URL(dial_link(source.dial_url.get_secret_value(), request), encoded=True)
        try:
            async with self._session.get(link, allow_redirects=False) as response:
                return read_answer(response.status, await _read(response))
        except _NoAnswerError as error:
            raise self._what_is_known(error.__cause__) from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._what_is_known(error) from error

    def _what_is_known(self, error: BaseException | None) -> DialError:
        if isinstance(error, aiohttp.ClientConnectorError):
            return DialError(DialState.REFUSED, 502, "FocalScope cannot be reached: nothing was dialed.")
        if isinstance(error, TimeoutError):
            return DialError(DialState.UNKNOWN, 504, f"FocalScope did not answer within {self._timeout_s:g} s.")
        return DialError(DialState.UNKNOWN, 504, "The connection to FocalScope broke before it answered.")


async def _read(response: aiohttp.ClientResponse) -> str:
    """Read an answer to its end, in however many pieces it comes.

    Raises:
        DialError: it has none in sight.
    """
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > _MAX_ANSWER_BYTES:
            limit = f"longer than {_MAX_ANSWER_BYTES >> 10} KiB"
            raise DialError(DialState.UNKNOWN, 502, f"FocalScope's answer is {limit}: it is none to a dial request.")
    return body.decode("utf-8-sig", "replace")
