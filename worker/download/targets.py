"""The URL of a job's recording, which must be at the allowed origin."""

from __future__ import annotations

from urllib.parse import quote, urljoin, urlsplit, urlunsplit

from yarl import URL

from shared.config.sources import Source, origin
from shared.domain.recording import RecordingJob
from worker.download.allowed_paths import check_path
from worker.download.failures import FetchError, Reason


def recording_link(source: Source, job: RecordingJob) -> str:
    """Return the URL of a job's recording: RecordingURL with the allowed origin, else the source's template.

    Raises:
        FetchError: there is neither, or the URL would leave the allowed origin or its allowed paths.
    """
    allowed = source.recording_origin
    if job.recording_url and allowed:
        allowed_parts = urlsplit(allowed)
        try:
            sent = urlsplit(job.recording_url)
        except ValueError as error:
            raise FetchError(Reason.NO_RECORDING_LINK, "the RecordingURL in the callback is not a URL") from error
        link = urlunsplit((allowed_parts.scheme, allowed_parts.netloc, sent.path, sent.query, ""))
        check_path(source, link)
        return link
    if source.recording_url is None or allowed is None:
        raise FetchError(
            Reason.NO_RECORDING_LINK, "no URL for this recording. Set recording_origin or recording_url of the source"
        )
    values = {"call_id": job.call_id, "guid": job.guid or "", "request_id": "" if job.request_id is None else job.request_id}
    link = source.recording_url.get_secret_value()
    for name, value in values.items():
        link = link.replace("{" + name + "}", quote(str(value), safe=""))
    return _inside(allowed, link)


def redirect_target(allowed: str, link: str, location: str) -> str:
    """Return the target of a redirect, if it is in the allowed origin.

    Raises:
        FetchError: it leaves the origin, or contains a user and password that `link` does not.
    """
    try:
        target = urljoin(link, location)
        user_info = urlsplit(target).netloc.rpartition("@")[0]
    except ValueError as error:
        raise FetchError(Reason.ORIGIN_NOT_ALLOWED, "the redirect target is not a URL") from error
    if user_info and user_info != urlsplit(link).netloc.rpartition("@")[0]:
        raise FetchError(Reason.ORIGIN_NOT_ALLOWED, "the redirect target contains a user name")
    return _inside(allowed, target)


def is_same_origin(one: URL, other: URL) -> bool:
    """Compare scheme, host and port. An international host equals its punycode, and a default port equals none."""
    return (one.scheme, one.raw_host, one.port) == (other.scheme, other.raw_host, other.port)


def _inside(allowed: str, link: str) -> str:
    try:
        is_same = is_same_origin(URL(origin(link)), URL(allowed))
    except ValueError:
        is_same = False
    if not is_same:
        raise FetchError(Reason.ORIGIN_NOT_ALLOWED, f"recordings may only come from {allowed}")
    parts = urlsplit(link)
    return urlunsplit((parts.scheme, parts.netloc, parts.path, parts.query, ""))
