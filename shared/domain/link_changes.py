"""Compares the parameters of a callback with those of the adapter link of its source."""

from __future__ import annotations

from typing import Final, NamedTuple
from urllib.parse import unquote_plus

from shared.domain.adapter_link import SECRET_PARAMETER, Adapter, Placeholder, tidy_name
from shared.domain.unescaped_url import with_whole_urls

_MAX_PARAMETERS: Final = 100
_MAX_CHARACTERS: Final = 64


class LinkDifferences(NamedTuple):
    """Names of parameters: those that the link does not have, those of the link that arrived, and those that did not."""

    unknown: tuple[str, ...]
    arrived: tuple[str, ...]
    missing: tuple[str, ...]


def compare_with_link(adapter: Adapter, query: str) -> LinkDifferences:
    """Compare the query of a callback, without the secret, with the adapter link. Values do not matter, empty ones included."""
    parts = query.split("&", _MAX_PARAMETERS)[:_MAX_PARAMETERS]
    if adapter.parameter(Placeholder.RECORDING_URL) is not None:  # its pieces are no parameters
        parts = with_whole_urls(adapter, parts).parts
    names = [tidy_name(unquote_plus(part.partition("=")[0])) for part in parts if "=" in part]
    meanings = {adapter.meaning(name) for name in names}
    constants = adapter.constants.keys() & set(names)
    unknown = [name for name in names if adapter.meaning(name) is None and name not in constants and name != SECRET_PARAMETER]
    own = [*((name, meaning in meanings) for name, meaning in adapter.meanings.items())]
    own += [(name, name in constants) for name in adapter.constants]
    return LinkDifferences(
        tuple(sorted({name[:_MAX_CHARACTERS] for name in unknown if name and name.isprintable()})),
        tuple(name for name, has_arrived in own if has_arrived),
        tuple(name for name, has_arrived in own if not has_arrived),
    )
