"""The links by which a recording can be requested. Each is at the allowed origin."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from urllib.parse import quote, urljoin, urlsplit

from yarl import URL

from shared.config.links import origin
from shared.config.sources import Source
from shared.domain.recording import RecordingJob
from shared.domain.recording_link import read_link, to_ascii
from shared.domain.recording_reasons import Reason
from worker.download.allowed_paths import check_path
from worker.download.failures import FetchError

_HTTP_PORT, _HTTPS_PORT = 80, 443
_SHOWN_CHARACTERS = 100
_NO_LINK = "no URL for this recording. Set recording_origin or recording_url of the source"
_NOT_A_LINK = "the RecordingURL in the callback is not a URL of a recording. Set recording_url of the source"
_NO_VALUE = "recording_url names no recording: the callbacks did not send its placeholder"


@dataclass(frozen=True, slots=True)
class Link:
    """A link of one recording.

    Attributes:
        url: the URL as it is requested. A credential.
        is_certain: it names this very recording, so "not found" is an answer about it.
        names: ids of the recording. A redirect to a link with one of them still names this recording.
        is_template: it was made from `recording_url`.
    """

    url: str = field(repr=False)
    is_certain: bool
    names: tuple[str, ...] = ()
    is_template: bool = False


def recording_links(source: Source, job: RecordingJob) -> list[Link]:
    """Return the links of a job's recording, in the order of use: RecordingURL with the allowed origin, and the template.

    The template is a second choice: a RecordingURL can be cut, expired, or a link of something else.

    Raises:
        FetchError: there is none, or the only one would leave the allowed origin or its allowed paths.
    """
    links: list[Link] = []
    problems: list[FetchError] = []
    for make in (_own_link, _template_link):
        try:
            link = make(source, job)
        except FetchError as error:
            problems.append(error)
        else:
            if link is not None and link.url not in {other.url for other in links}:
                links.append(link)
    if links:
        return links
    # Of a RecordingURL that is none and a template that is not set, the first says more.
    raise problems[0] if problems else FetchError(Reason.NO_RECORDING_LINK, _NO_LINK)


def _own_link(source: Source, job: RecordingJob) -> Link | None:
    if not job.recording_url or not source.recording_origin:
        return None
    sent = read_link(job.recording_url)
    if sent is None:
        raise FetchError(Reason.NO_RECORDING_LINK, _NOT_A_LINK)
    url = _base(source.recording_origin) + sent.target
    check_path(source, url)
    names = _names(job)
    is_certain = not sent.is_in_doubt and (sent.is_certain or names_recording(url, names))
    return Link(url, is_certain, names)


def _template_link(source: Source, job: RecordingJob) -> Link | None:
    if source.recording_url is None or source.recording_origin is None:
        return None
    template = source.recording_url.get_secret_value()
    values = {"call_id": job.call_id, "guid": job.guid or "", "request_id": "" if job.request_id is None else str(job.request_id)}
    used = {name: value for name, value in values.items() if f"{{{name}}}" in template}
    if used and not any(used.values()):
        raise FetchError(Reason.NO_RECORDING_LINK, _NO_VALUE)
    url = template
    for name, value in used.items():
        url = url.replace("{" + name + "}", quote(value, safe=""))
    # Both legs of a pair have one RequestID.
    is_certain = bool(used.get("call_id") or used.get("guid"))
    return Link(_inside(source.recording_origin, url, ""), is_certain, _names(job), is_template=True)


def _names(job: RecordingJob) -> tuple[str, ...]:
    return (job.call_id, job.guid) if job.guid else (job.call_id,)


def names_recording(url: str, names: Collection[str]) -> bool:
    """Return whether one of these ids is in the path or query of a URL, and not as a part of a longer one."""
    parts = urlsplit(url)
    text = f"{parts.path}?{parts.query}".casefold()
    return any(re.search(rf"(?<![0-9a-z]){re.escape(name.casefold())}(?![0-9a-z])", text) for name in names)


def redirect_target(allowed: str, link: str, location: str) -> str:
    """Return the target of a redirect, if it is in the allowed origin, or is https where that is http.

    Raises:
        FetchError: it leaves the origin, or contains a user and password.
    """
    try:
        target = urljoin(link, location.strip())
        user_info = urlsplit(target).netloc.rpartition("@")[0]
    except ValueError as error:
        raise FetchError(Reason.ORIGIN_NOT_ALLOWED, "the redirect target is not a URL") from error
    if user_info:
        raise FetchError(Reason.ORIGIN_NOT_ALLOWED, "the redirect target contains a user name")
    # From https there is no way back to http.
    return _inside(
        origin(link) if URL(origin(link)).scheme == "https" else allowed, target, f"a redirect to {shown_origin(target)}. "
    )


def shown_origin(url: str) -> str:
    """Return scheme, host and port of a URL for a message, whatever the URL is."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "no URL"
    return f"{parts.scheme}://{host}"[:_SHOWN_CHARACTERS].encode("ascii", "backslashreplace").decode("ascii")


def is_reachable(url: URL, allowed: URL) -> bool:
    """Compare scheme, host and port. An international host equals its punycode, and a default port equals none.

    https instead of http is allowed at the same host: from port 80 to 443, or at the same port.
    """
    if url.raw_host != allowed.raw_host:
        return False
    if url.scheme == allowed.scheme:
        return url.port == allowed.port
    is_upgrade = (allowed.scheme, url.scheme) == ("http", "https")
    return is_upgrade and (url.port == allowed.port or (allowed.port, url.port) == (_HTTP_PORT, _HTTPS_PORT))


def _inside(allowed: str, link: str, subject: str) -> str:
    """Return a link with its origin in its usual spelling, and without a user.

    Raises:
        FetchError: its origin is not the allowed one.
    """
    outside = FetchError(Reason.ORIGIN_NOT_ALLOWED, f"{subject}recordings may only come from {allowed}")
    try:
        base, rest = _base(origin(link)), to_ascii(_rest(link))
        is_inside = is_reachable(URL(base), URL(allowed))
    except ValueError as error:
        raise outside from error
    if not is_inside:
        raise outside
    return base + rest


def _base(url: str) -> str:
    return str(URL(url)).rstrip("/")


def _rest(link: str) -> str:
    """Return path and query of a link as they are written."""
    parts = urlsplit(link)
    return f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
