"""Reads a RecordingURL: which link of the PBX it means, or that it is none. Senders escape it twice, cut it, or send `null`.

Only its path and query count, because downloads go to the source's own origin. The value is a credential and is never shown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

IN_DOUBT = "#in-doubt"
"""Marks a URL that may have been cut or changed on its way. It is a fragment, so it is never requested."""

_MAX_ENCODINGS = 5
# What wraps a value: white space, control characters, quotes, angle brackets, and marks that are not visible.
_WRAPPERS = (
    "".join(map(chr, range(33))) + "\x7f\x85\xa0\ufeff\u200b\u200e\u200f\u2028\u2029\"'`<>\u201c\u201d\u2018\u2019\xab\xbb"
)
_HOST = r"(?:[^\s/\\?#@]*@)?(?:\[[0-9A-Fa-f:.]+\]|[^\s/\\?#@:\[\]{}<>%\"'|^`]+)(?::[0-9]{0,5})?"
_USUAL = re.compile(r"https?://[0-9A-Za-z.:-]+/[!$&-;=?-Z_a-z~]*[?&]nId=[1-9][0-9]*")
_URL = re.compile(rf"https?:[/\\]{{1,2}}{_HOST}(?P<rest>[/\\?#].*)?", re.IGNORECASE | re.DOTALL)
_WITHOUT_SCHEME = re.compile(
    rf"(?://{_HOST}|[\w.-]+:[0-9]{{1,5}}|\[[0-9A-Fa-f:.]+\](?::[0-9]{{1,5}})?|(?:[\w-]+\.)+[A-Za-z]{{2,}}|[0-9]+(?:\.[0-9]+){{3}}|(?=/(?!/)))"
    r"(?P<rest>[/?].*)",
    re.DOTALL,
)
_BEGIN = re.compile("https?://", re.IGNORECASE)
_BRACES = re.compile("[{}]|%7[BbDd]")
_ESCAPED_QUESTION = re.compile("%(?:25)*3[Ff]")
_ESCAPED_EQUALS = re.compile("%(?:25)*3[Dd]")
_ESCAPED_AMPERSAND = re.compile("%(?:25)*26")
_JSON_ESCAPE = re.compile(r"\\u00([0-7][0-9A-Fa-f])|\\/")
# Braces of a placeholder that arrived unreplaced.
_UNREPLACED = re.compile(r"(?:\{|%(?:25)*7[Bb]){2}|(?:\}|%(?:25)*7[Dd]){2}")
_DOUBLED_SCHEME = re.compile(r"(?:https?:[/\\]{1,2})+(?=https?:[/\\])", re.IGNORECASE)
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")
_NOT_PRINTABLE = re.compile(r"[^!-~]+")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_SEPARATORS = re.compile("[&;]")
_FORM_NAME = "uid"
_DOWNLOAD_FORM = "uid=form_faster_downloadcall"
# Programs write these for a value that they do not have.
_NO_VALUE = frozenset({"", "null", "none", "nil", "undefined", "nan", "n/a"})


@dataclass(frozen=True, slots=True)
class RecordingLink:
    """The link that a RecordingURL means.

    Attributes:
        target: path and query as they are requested: printable ASCII, not escaped again.
        is_certain: the value was a URL as it was sent, so that the PBX can only have meant this link.
        is_in_doubt: the PBX may have meant another link, even if this one names the recording.
    """

    target: str
    is_certain: bool
    is_in_doubt: bool = False


def read_link(sent: str) -> RecordingLink | None:
    """Return the link that a RecordingURL means, or None if it names no recording."""
    text = _unwrapped(sent)
    link = _decoded(text)
    mended = _DOUBLED_SCHEME.sub("", _JSON_ESCAPE.sub(_plain_json, link).replace("&amp;", "&"), count=1)
    if _UNREPLACED.search(mended) or _CONTROLS.search(mended):
        return None
    url = _URL.fullmatch(mended)
    match = url or _WITHOUT_SCHEME.fullmatch(mended)
    if match is None:
        return None
    rest = (match["rest"] or "").partition("#")[0]
    path, question, query = rest.partition("?")
    plain_path = path.replace("\\", "/") or "/"
    if not query and not plain_path.strip("/"):
        return None
    if _is_cut(query):
        return None
    is_as_sent = url is not None and mended == text and plain_path == (path or "/") and _BEGIN.match(text) is not None
    is_in_doubt = mended.endswith(IN_DOUBT)
    is_certain = is_as_sent and not is_in_doubt and not _lacks_value(plain_path, query)
    return RecordingLink(to_ascii(f"{plain_path}{question}{query}"), is_certain, is_in_doubt)


def is_link(sent: str) -> bool:
    """Return whether a RecordingURL names a recording. This is much faster than `read_link` for those of FocalScope."""
    return _USUAL.fullmatch(sent) is not None or read_link(sent) is not None


def to_ascii(link: str) -> str:
    """Percent-encode what a request line cannot have. Everything else stays as it is, escapes included.

    Raises:
        ValueError: the link contains a control character.
    """
    if _CONTROLS.search(link):
        raise ValueError("the link contains a control character")
    return _NOT_PRINTABLE.sub(lambda part: "".join(map(_escaped, part[0])), link)


def decode_link(escaped: str) -> str:
    """Decode a value of a query once. Bytes that are not ASCII stay escaped, because their encoding is unknown."""
    return _decoded_once(escaped.replace("+", " "))


def _escaped(character: str) -> str:
    code = ord(character)
    # A byte of a header that is no UTF-8 is a character from here on (PEP 383).
    content = bytes([code - 0xDC00]) if 0xDC80 <= code <= 0xDCFF else character.encode("utf-8", "surrogatepass")  # noqa: PLR2004
    return "".join(f"%{byte:02X}" for byte in content)


def _unwrapped(text: str) -> str:
    return text.strip(_WRAPPERS)


def _decoded(text: str) -> str:
    """Decode a value that was escaped more often than once: until it begins like a link."""
    for _ in range(_MAX_ENCODINGS):
        is_url = "%" not in text or _URL.fullmatch(text) or _WITHOUT_SCHEME.fullmatch(text)
        if is_url and not _has_escaped_query(text):
            break
        text = _unwrapped(_decoded_once(text))
    return text


def _has_escaped_query(url: str) -> bool:
    """Return whether a URL has a query that was escaped once more than the URL: its `?`, `=` or `&`."""
    path, question, query = url.partition("#")[0].partition("?")
    if not question:
        begin = _ESCAPED_QUESTION.search(path)
        return begin is not None and ("=" in path[begin.end() :] or _ESCAPED_EQUALS.search(path, begin.end()) is not None)
    if "=" not in query:
        return _ESCAPED_EQUALS.search(query) is not None
    names = (pair.partition("=") for pair in _ESCAPED_AMPERSAND.split(query)[1:])
    return "&" not in query and any(name and equals and "%" not in name for name, equals, _ in names)


def _decoded_once(text: str) -> str:
    content = unquote_to_bytes(text.encode("utf-8", "surrogatepass"))
    return _NOT_ASCII.sub(lambda byte: f"%{ord(byte[0]):02X}", content.decode("latin-1"))


def _plain_json(escape: re.Match[str]) -> str:
    return chr(int(escape[1], 16)) if escape[1] else "/"


def _is_cut(query: str) -> bool:
    """Return whether a link of FocalScope's download form lacks the number of the recording."""
    parts = _SEPARATORS.split(query)
    names = {name.casefold(): value for name, _, value in (part.partition("=") for part in parts)}
    return _DOWNLOAD_FORM in parts and names.get("nid", "").casefold() in _NO_VALUE | {"0"}


def _lacks_value(path: str, query: str) -> bool:
    """Return whether a value of a link seems to be missing: `null`, a placeholder, or an id that is empty or 0."""
    last, dot, _ = path.rpartition("/")[2].partition(".")
    if (dot and not last) or _BRACES.search(f"{path}?{query}"):
        return True
    pairs = [(name.casefold(), value.casefold()) for name, _, value in (part.partition("=") for part in _SEPARATORS.split(query))]
    is_word = any(value in _NO_VALUE - {""} for value in (last.casefold(), *dict(pairs).values()))
    return is_word or any(name.endswith("id") and name != _FORM_NAME and value in {"", "0", "-1"} for name, value in pairs)
