"""`callfold annotate`: add an annotation to a call, journaled and audited like one over HTTP."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import orjson

from console.annotations.annotate import Annotations, audited_annotation
from console.annotations.bodies import InvalidAnnotationError, NewAnnotation, new_annotation
from console.commands.common import call_key, cli_user, select_sources
from console.lookup.lookup import open_lookup
from shared.config.live_sources import LiveSources
from shared.config.settings import Settings
from shared.domain.annotation import MAX_BODY_BYTES, AnnotationType
from shared.domain.ids import is_call_ref
from shared.errors import CallfoldError, ConfigError
from shared.exit_codes import EXIT_OK
from shared.runtime.audit import Audit
from shared.runtime.broker import create_publisher
from shared.runtime.process import background
from shared.runtime.store import open_store
from shared.streams.connections import wait_until_connected

_STDIN = "-"
# The field of a body that a plain text is.
_TEXT_FIELDS = {
    AnnotationType.TRANSCRIPT: "text",
    AnnotationType.DISPOSITION: "code",
    AnnotationType.CONSENT: "status",
    AnnotationType.NOTE: "text",
}


def read_annotation(kind: str, text: str | None, file: str | None, by: str | None) -> NewAnnotation:
    """Read an annotation from the options of the command. A file has a JSON object, the body, or a plain text.

    Raises:
        ConfigError: an option or the file is not valid.
    """
    if (text is None) == (file is None):
        raise ConfigError("Give either --text or --file.")
    if kind not in set(AnnotationType):
        raise ConfigError(f"Invalid --type. Expected one of {', '.join(AnnotationType)}.")
    body: dict[str, Any] = {_TEXT_FIELDS[AnnotationType(kind)]: text} if file is None else _body(AnnotationType(kind), file)
    try:
        return new_annotation({"type": kind, "body": body} | ({"by": by} if by else {}))
    except InvalidAnnotationError as error:
        raise ConfigError(str(error)) from None


def _body(kind: AnnotationType, file: str) -> dict[str, Any]:
    try:
        with sys.stdin.buffer if file == _STDIN else Path(file).open("rb") as stream:
            content = stream.read(MAX_BODY_BYTES + 1)
        if len(content) > MAX_BODY_BYTES:
            raise ConfigError(f"{file} is larger than an annotation may be ({MAX_BODY_BYTES >> 10} KiB).")
        text = content.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Cannot read {file}: {error}") from None
    try:
        body = orjson.loads(text)
    except orjson.JSONDecodeError:
        body = None
    return body if isinstance(body, dict) else {_TEXT_FIELDS[kind]: text.strip()}


async def annotate(settings: Settings, source: str, call: str | None, new: NewAnnotation, key: str, *, as_json: bool) -> int:
    """Add an annotation; returns 0 once RabbitMQ has it.

    Raises:
        ConfigError: the name of the call or its source is not known.
        CallfoldError: the call cannot take it, or a server is not available.
    """
    named = call_key(source, call)
    sources = select_sources(settings, named.source)
    if not is_call_ref(named.call):
        raise ConfigError("Name the call as in `callfold annotate acme 513`.")
    publisher = create_publisher(settings, "annotate")
    async with open_lookup(settings) as lookup, open_store(settings) as store, background(publisher.run()):
        await wait_until_connected(publisher)
        annotations = Annotations(store, publisher, LiveSources(sources), lookup.is_past)
        answer = await audited_annotation(annotations, Audit(publisher), named, new, cli_user(), key)
    if answer.annotation is None:
        raise CallfoldError(answer.title)
    sys.stdout.write(orjson.dumps(answer.annotation).decode() + "\n" if as_json else f"{answer.annotation['id']}\n")
    return EXIT_OK
