"""Where a job's recording is."""

from __future__ import annotations

from urllib.parse import quote, urljoin, urlsplit, urlunsplit

from shared.recording import RecordingJob
from shared.sources import Source, origin
from worker.reasons import FetchError, Reason


def recording_link(source: Source, job: RecordingJob) -> str:
    """Work out where a job's recording is: RecordingURL with the allowed origin, else the source's template.

    Raises:
        FetchError: there is neither, or the link would leave the allowed origin.
    """
    allowed = source.recording_origin
    if job.recording_url and allowed:
        ours = urlsplit(allowed)
        try:
            sent = urlsplit(job.recording_url)
        except ValueError as error:
            raise FetchError(Reason.NO_RECORDING_LINK, "the RecordingURL that was sent is no URL") from error
        return urlunsplit((ours.scheme, ours.netloc, sent.path, sent.query, ""))
    if source.recording_url is None or allowed is None:
        raise FetchError(Reason.NO_RECORDING_LINK, "set recording_origin or recording_url of the source")
    values = {"call_id": job.call_id, "guid": job.guid or "", "request_id": "" if job.request_id is None else job.request_id}
    link = source.recording_url.get_secret_value()
    for name, value in values.items():
        link = link.replace("{" + name + "}", quote(str(value), safe=""))
    return _inside(allowed, link)


def redirect_target(allowed: str, link: str, location: str) -> str:
    """Follow a redirect from a link, inside the allowed origin only.

    Raises:
        FetchError: it leads elsewhere.
    """
    try:
        target = urljoin(link, location)
    except ValueError as error:
        raise FetchError(Reason.ORIGIN_NOT_ALLOWED, "a redirect to what is no URL") from error
    return _inside(allowed, target)


def _inside(allowed: str, link: str) -> str:
    try:
        same = origin(link) == allowed
    except ValueError:
        same = False
    if not same:
        raise FetchError(Reason.ORIGIN_NOT_ALLOWED, f"only {allowed} may be asked for recordings")
    parts = urlsplit(link)
    return urlunsplit((parts.scheme, parts.netloc, parts.path, parts.query, ""))
