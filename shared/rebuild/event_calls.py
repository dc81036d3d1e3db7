"""The call of a raw event, found with as little work as possible: most events of a journal are not replayed.

The result is that of `facts_of`. A callback in the usual form is not parsed: its RequestID is sent once, and in digits.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from shared.config.sources import Sources
from shared.domain.adapter_link import Adapter, Placeholder
from shared.domain.callback_values import MAX_DIGITS
from shared.domain.facts import facts_of
from shared.domain.ids import CallKey, CallRef, SourceName
from shared.domain.raw_event import AnnotationEvent, CallbackEvent, DialEvent, RawEvent, TimerEvent, Undecodable

# A query that nothing in `callback_query.py` reads in another way: plain names, one `=` each, and no other separator or URL.
_USUAL = re.compile(r"(?:[A-Za-z0-9_]+=[^=&;#?{}]*&)*[A-Za-z0-9_]+=[^=&;#?{}]*")


class EventCalls:
    """Finds the calls of events of some sources."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._readers: dict[SourceName, Callable[[str], str | None]] = {
            name: _request_id_reader(source.adapter) for name, source in sources.items()
        }

    def of(self, event: RawEvent | Undecodable) -> CallKey | None:
        """Return the call of an event; None if the fold would dead-letter it. It is not None for some invalid callbacks."""
        match event:
            case CallbackEvent():
                reader = self._readers.get(event.source)
                request_id = reader(event.query) if reader else None
                return self.certain(event) if request_id is None else CallKey(event.source, CallRef(request_id))
            case DialEvent() | TimerEvent() | AnnotationEvent():
                return self.certain(event)
            case _:
                return None

    def certain(self, event: RawEvent) -> CallKey | None:
        """Return the call of an event; None if the fold would dead-letter it."""
        source = self._sources.get(event.source)
        if source is None:
            return None
        try:
            return facts_of(event, source.adapter)[0]
        except Exception:  # noqa: BLE001 - whatever the error is, the fold dead-lettered this event
            return None


def _request_id_reader(adapter: Adapter) -> Callable[[str], str | None]:
    """Return a function that reads the RequestID of a query in the usual form, as `str(int(...))` writes it; else None."""
    names = [name for name, meaning in adapter.meanings.items() if meaning == Placeholder.REQUEST_ID]
    if len(names) != 1:
        return lambda _: None
    [name] = names
    lowered = name.lower()
    parameter = re.compile(rf"(?:^|&){re.escape(name)}=([1-9][0-9]{{0,{MAX_DIGITS - 1}}})(?=&|$)")

    def read(query: str) -> str | None:
        match = parameter.search(query)
        if match is None or not query.isascii() or query.lower().count(lowered) > 1:
            return None
        if "://" in query or _USUAL.fullmatch(query) is None:
            return None
        return match[1]

    return read
