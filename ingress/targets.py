"""The target of a request: which source it names, and its query, also where the link was spelled oddly on its way.

People paste links, and PBXes and proxies join, escape and normalize them. A callback must not be lost to a slash too many.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple
from urllib.parse import unquote, unquote_to_bytes

from shared.domain.ignored import WITH_FORM
from shared.percent_encoding import encode_unprintable

# RFC 9112, 3.2.2: a server must accept the absolute form. The host in it is ignored.
_ABSOLUTE_FORM = re.compile(r"https?://[^/?]*", re.IGNORECASE)
_BEGIN_OF_QUERY = re.compile(r"[?&]|%3F|%26", re.IGNORECASE)
_SLASH = re.compile(r"[/\\]|%2F|%5C", re.IGNORECASE)
# What HTML has for `&`, escaped once or more often.
_ESCAPED_AND = re.compile(r"&(?:(?:amp|#0{0,6}38|#x0{0,6}26);)++", re.IGNORECASE)
# The parameter `token` behind any separator, as `find_secret` reads its name.
_TOKEN = re.compile(r"(?:^|[&;](?:%20|\+)*)(?:t|%74)(?:o|%6[Ff])(?:k|%6[Bb])(?:e|%65)(?:n|%6[Ee])=")
_SEMICOLON = re.compile(r";(?:%20|\+)*")
_ROOM = "callbacks"


class Target(NamedTuple):
    """The source of `/callbacks/<source>` in lower case, or '' for another path, and the query."""

    name: str
    query: str


def read_target(target: str) -> Target:
    """Read a target in any spelling: slashes too many, other letter case, escapes, and `&` or `%3F` for the first `?`."""
    if not target.startswith("/"):
        target = _ABSOLUTE_FORM.sub("", target, count=1)
    begin = _BEGIN_OF_QUERY.search(target)
    path, query = (target[: begin.start()], target[begin.start() :]) if begin else (target, "")
    if begin and begin[0] != "&":  # an `&` may be the first of `&amp;`
        query = query[len(begin[0]) :]
    segments = [segment for segment in _SLASH.split(path) if _plain(segment) not in {"", "."}]
    if len(segments) not in {2, 3} or _plain(segments[0]) != _ROOM:
        return Target("", query)
    if len(segments) == 3:  # noqa: PLR2004 - one more than /callbacks/<source>
        if "=" not in segments[2]:
            return Target("", query)
        query = f"{segments[2]}&{query.lstrip('&')}"
    return Target(_plain(segments[1]), query)


def is_odd(query: str) -> bool:
    """Return whether `tidied` may change a query. It costs little: every callback is asked."""
    return ";" in query or "=" not in query or query[0] in "?&"


def tidied(query: str) -> str:
    """Return a query as its sender meant it: without `?` and `&` in front, `&amp;` as `&`, and not escaped as a whole."""
    if "=" not in query and "%3d" in query.lower():
        query = encode_unprintable(unquote_to_bytes(query)).decode("ascii")
    if ";" in query:
        query = _ESCAPED_AND.sub("&", query)
    return query.lstrip("?&")


def with_second_query(query: str, meanings: Mapping[str, str]) -> str | None:
    """Return a query to whose link a second query was added, as in `?token=...?CallType=...`, with `&` for the second `?`.

    None if it has no second `?`, or in a text that has a meaning: that `?` may belong to the text. To an id it cannot.
    """
    before, _, after = query.partition("?")
    name = before.rpartition("&")[2].partition("=")[0]
    meaning = meanings.get(unquote(name))
    return f"{before}&{after}" if after and (meaning is None or meaning in WITH_FORM) else None


def with_split_token(query: str) -> str | None:
    """Return a query whose `token` is followed or preceded by a semicolon, with `&` for the semicolons of that part.

    None if there is no such semicolon. It may belong to the secret, so the secret decides.
    """
    token = _TOKEN.search(query) if ";" in query else None
    if token is None:
        return None
    start, end = query.rfind("&", 0, token.end()) + 1, query.find("&", token.end())
    part = query[start:] if end < 0 else query[start:end]
    return f"{query[:start]}{_SEMICOLON.sub('&', part)}{query[start + len(part) :]}" if ";" in part else None


def respelled(query: str, meanings: Mapping[str, str]) -> Iterator[str]:
    """Yield what a query with a wrong `token` may mean: it has a second query, semicolons, or a fragment."""
    others = [each for each in (with_second_query(query, meanings), with_split_token(query)) if each is not None]
    yield from others
    for each in (query, *others):
        if "#" in each:
            yield each.partition("#")[0]


def _plain(segment: str) -> str:
    return unquote(segment).strip().lower()
