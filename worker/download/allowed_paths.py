"""Which links of the PBX may be fetched as a recording.

A callback can name any link of the PBX, and one of them dials. So a link that could dial is never fetched, however it is written.
The other links are limited by `recording_paths` of the source. If a source dials and has a `recording_url`, the default is the
path of that, and the form with which FocalScope downloads a recording.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import SplitResult, urlsplit

from shared.config.sources import Source
from shared.domain.recording_reasons import Reason
from shared.percent_encoding import decode_repeatedly
from worker.download.failures import FetchError

_PLACEHOLDER = re.compile(r"\{[^{}]*\}")
_DIALS = re.compile(r"\{(?:agent|number)\}")
_SEPARATORS = re.compile("[&;]")
_PATH_END = re.compile("[?#]")
# The rest of a segment is a parameter of it, or ends it for a server that is written in C.
_SEGMENT_END = re.compile("[;\0]")
# PHP writes these in names as `_`.
_AS_IN_PHP = str.maketrans(". ", "__")
# The parameters that choose the function of a web application whose pages share one path.
_FORM_NAMES = frozenset({"uid", "form", "action", "cmd", "command", "method", "function", "op"})
_DOWNLOAD_FORM = "form_faster_downloadcall"
_FORM = "form_"


def check_path(source: Source, link: str, *, is_redirect: bool = False) -> None:
    """Check the path and query of a link that a callback named, or to which the PBX redirects.

    A redirect is the PBX's own choice, so the default limit does not apply to it.

    Raises:
        FetchError: the link may not be fetched.
    """
    parts = urlsplit(link)
    # A proxy that passes a decoded path on turns an encoded `?` into the beginning of the query.
    decoded, *hidden = _PATH_END.split(decode_repeatedly(parts.path))
    path = _plain_path(decoded)
    if ".." in path:
        raise FetchError(Reason.PATH_NOT_ALLOWED, "the path of the link contains ..")
    parameters = _parameters("&".join((parts.query, *hidden)))
    if _may_dial(source, "/".join(path).casefold(), parameters):
        raise FetchError(Reason.PATH_NOT_ALLOWED, "the link may dial: it resembles dial_url, or names another form of FocalScope")
    if not _is_listed(source, "/" + "/".join(path), parameters, is_redirect=is_redirect):
        detail = "the path of the link is not one of recording_paths. Their default is the path of recording_url"
        raise FetchError(Reason.PATH_NOT_ALLOWED, detail)


def _is_listed(source: Source, path: str, parameters: Mapping[str, Sequence[str]], *, is_redirect: bool) -> bool:
    if source.recording_paths:
        return any(_glob(pattern).fullmatch(path) for pattern in source.recording_paths)
    if is_redirect or source.dial_url is None or source.recording_url is None:
        return True
    template = urlsplit(source.recording_url.get_secret_value())
    pattern = _glob("/" + "/".join(_plain_path(_PLACEHOLDER.sub("*", template.path))))
    return bool(pattern.fullmatch(path)) or parameters.get("uid") == [_DOWNLOAD_FORM]


def _may_dial(source: Source, path: str, parameters: Mapping[str, Sequence[str]]) -> bool:
    recording = urlsplit(source.recording_url.get_secret_value() if source.recording_url else "")
    forms = {_DOWNLOAD_FORM, *_constants(recording).get("uid", ())}
    if any(form.startswith(_FORM) and form not in forms for form in parameters.get("uid", ())):
        return True
    if source.dial_url is None:
        return False
    dial = urlsplit(source.dial_url.get_secret_value())
    # PBXs differ in the separator and the case of names, so these are compared without them.
    numbers = {name for name, values in _parameters(dial.query).items() if any(map(_DIALS.search, values))}
    if numbers and numbers <= parameters.keys():
        return True
    constants = _constants(dial)
    named = {name: values for name, values in constants.items() if name in _FORM_NAMES}
    distinguishing = _distinguishing(named, _constants(recording))
    if _is_at_or_below(path, dial):
        return bool(numbers & parameters.keys()) or not any(
            parameters.get(name) == [value] for name, value in distinguishing.items()
        )
    return any(set(values) & set(parameters.get(name, ())) for name, values in named.items() if name not in distinguishing)


def _distinguishing(dial: Mapping[str, Sequence[str]], recording: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return the parameters that show that a link at the path of `dial_url` gets a recording, with their values."""
    shown = {name: values[0] for name, values in recording.items() if name in dial and len(values) == 1}
    return {name: value for name, value in ({"uid": _DOWNLOAD_FORM} | shown).items() if value not in dial.get(name, ())}


def _is_at_or_below(path: str, dial: SplitResult) -> bool:
    segments = [_PLACEHOLDER.sub("*", segment) for segment in _plain_path(dial.path)]
    pattern = "/".join("[^/]*".join(map(re.escape, segment.casefold().split("*"))) for segment in segments)
    return re.fullmatch(rf"{pattern}(?:/.*)?" if pattern else "", path, re.DOTALL) is not None


def _plain_path(path: str) -> list[str]:
    """Return the segments of a path as the most lenient server reads it: decoded, without parameters and empty segments."""
    decoded = _normal(path).replace("\\", "/")
    segments = (_SEGMENT_END.split(segment, maxsplit=1)[0].strip() for segment in decoded.split("/"))
    # Windows ignores dots at the end of a name.
    names = (segment if segment == ".." else segment.rstrip(". ") for segment in segments)
    return [name for name in names if name]


def _parameters(query: str) -> dict[str, list[str]]:
    """Return the parameters of a query as the most lenient server reads them."""
    parameters: dict[str, list[str]] = {}
    for name, value in _pairs(query):
        values = parameters.setdefault(name, [])
        if value not in values:
            values.append(value)
    return parameters


def _pairs(query: str) -> Iterator[tuple[str, str]]:
    # What is encoded is read in both ways: as a part of a value, and as a separator.
    for text in {query, decode_repeatedly(query)}:
        for part in _SEPARATORS.split(text):
            name, _, value = part.partition("=")
            yield _word(name).partition("[")[0].translate(_AS_IN_PHP), _word(value)


def _word(text: str) -> str:
    return _normal(text).replace("+", " ").partition("\0")[0].strip().casefold()


def _normal(text: str) -> str:
    """Decode a text, and write full-width characters and the like as ASCII."""
    return unicodedata.normalize("NFKC", decode_repeatedly(text))


def _constants(template: SplitResult) -> dict[str, list[str]]:
    parameters = _parameters(template.query)
    return {name: values for name, values in parameters.items() if not any(map(_PLACEHOLDER.search, values))}


def _glob(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL)
