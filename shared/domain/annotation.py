"""Annotations of calls: what programs and people add to a call, such as a transcript.

An annotation is a fact, `+annotation:<id>`, which keeps the annotation that was received first. Its body can be long, so it is
not in the fact: the fact has its digest, and Redis keeps the body once under `=<digest>`. Whatever reads the facts of a call,
such as a merge or a list of calls, does not read the bodies.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b, sha256
from typing import Any, Final

import orjson

PREFIX: Final = "+annotation:"
BODY: Final = "="
MAX_BODY_BYTES: Final = 256 << 10
MAX_BY_CHARACTERS: Final = 128
_ID_DIGITS = 32
_DIGEST_BYTES = 16


class AnnotationType(StrEnum):
    """Type of an annotation. docs/annotations.md has the body of each."""

    TRANSCRIPT = "transcript"
    DISPOSITION = "disposition"
    CONSENT = "consent"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Annotation:
    """An annotation without its body.

    Attributes:
        at: when the console received it (RFC 3339 UTC).
        by: the program or person that made it.
        digest: of id, type, `by` and body.
        size: of the body in bytes.
    """

    id: str
    at: str
    type: AnnotationType
    by: str
    digest: str
    size: int


def annotation_id(source: str, call: str, key: str) -> str:
    """Return the id of an annotation by the key of its request: the same on every console, and after a restart."""
    # A key that is no UTF-8 has halves of surrogate pairs, which only this encoder writes.
    named = json.dumps([source, call, key], separators=(",", ":"))
    return sha256(named.encode()).hexdigest()[:_ID_DIGITS]


def body_text(body: object) -> str:
    """Return a body as the JSON text that is stored and compared: its names are sorted.

    Raises:
        ValueError: it is nested too deeply, has a value that is none of JSON, or is too long.
    """
    try:
        text = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
    except TypeError as error:  # also too deep, and half of a surrogate pair
        raise ValueError(str(error)) from error
    if len(text) > MAX_BODY_BYTES:
        raise ValueError(f"body has {len(text)} bytes, more than {MAX_BODY_BYTES}")
    return text.decode()


def digest_of(annotation: Mapping[str, Any]) -> str:
    """Return the digest of an annotation in the form of a record. It does not depend on the time."""
    content = [annotation["id"], annotation["type"], annotation["by"], annotation["body"]]
    return blake2b(orjson.dumps(content, option=orjson.OPT_SORT_KEYS), digest_size=_DIGEST_BYTES).hexdigest()


def annotation_facts(annotation: Mapping[str, Any], body: str) -> list[tuple[str, str]]:
    """Return the facts of an annotation in the form of a record, with the text of its body. The first to arrive counts."""
    digest = digest_of({**annotation, "body": orjson.loads(body)})
    head = {name: annotation[name] for name in ("at", "type", "by")} | {"digest": digest, "size": len(body.encode())}
    return [(PREFIX + annotation["id"], orjson.dumps(head).decode()), (BODY + digest, body)]


def read_annotations(facts: Mapping[str, str]) -> tuple[Annotation, ...]:
    """Return the annotations among the facts of a call, in the order of their times."""
    annotations = [_read(name, value) for name, value in facts.items() if name.startswith(PREFIX)]
    return tuple(sorted(annotations, key=lambda each: (each.at, each.id))) if annotations else ()


def _read(name: str, value: str) -> Annotation:
    head = orjson.loads(value)
    return Annotation(
        name.removeprefix(PREFIX), head["at"], AnnotationType(head["type"]), head["by"], head["digest"], head["size"]
    )


def digests_of(facts: Mapping[str, str]) -> list[str]:
    """Return the digests of the annotations among the facts of a call."""
    return [annotation.digest for annotation in read_annotations(facts)]


def only_annotations(facts: Mapping[str, str]) -> dict[str, str]:
    """Return those of some facts that are annotations."""
    return {name: value for name, value in facts.items() if name.startswith(PREFIX)}


def digest_of_all(digests: Iterable[str]) -> str:
    """Return one digest for the annotations of a call, by the digests of each; '' if there is none."""
    joined = ",".join(sorted(digests))
    return blake2b(joined.encode(), digest_size=_DIGEST_BYTES).hexdigest() if joined else ""
