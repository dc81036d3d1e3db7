"""Annotations of a call in its vCon: transcripts and dispositions are analysis, consents and notes are attachments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Part = dict[str, object]
Annotation = Mapping[str, Any]  # its type and its body may be newer than this release
_ANALYSIS = {"transcript": "transcript", "disposition": "report"}
_JSON = {"mediatype": "application/json", "encoding": "json"}


@dataclass(slots=True)
class PlacedAnnotations:
    """The annotations of a call in the places of a vCon.

    Attributes:
        references: each annotation with a JSON pointer (RFC 6901) into the vCon instead of its body.
    """

    analysis: list[Part] = field(default_factory=list)
    attachments: list[Part] = field(default_factory=list)
    references: list[Part] = field(default_factory=list)


def place_annotations(
    annotations: Sequence[Annotation], dialogs: Sequence[Part], party: int, first_attachment: int
) -> PlacedAnnotations:
    """Place the annotations of a call. Their attachments come from `party`, and begin with this index."""
    placed = PlacedAnnotations()
    for annotation in annotations:
        kind = str(annotation["type"])
        if kind in _ANALYSIS:
            pointer = f"/analysis/{len(placed.analysis)}/body"
            placed.analysis.append(_analysis(annotation, kind, dialogs))
        else:
            pointer = f"/attachments/{first_attachment + len(placed.attachments)}/body"
            attachment = {"purpose": kind, "start": annotation["at"], "party": party, "dialog": 0, **_JSON}
            placed.attachments.append(attachment | {"body": annotation["body"]})
        placed.references.append({name: value for name, value in annotation.items() if name != "body"} | {"body_at": pointer})
    return placed


def _analysis(annotation: Annotation, kind: str, dialogs: Sequence[Part]) -> Part:
    body = annotation["body"]
    analysis: Part = {"type": _ANALYSIS[kind], "dialog": _about(body, dialogs), "vendor": str(annotation["by"])}
    if isinstance(body.get("engine"), str):
        analysis["product"] = body["engine"]
    return {**analysis, "schema": f"callfold.{kind}", **_JSON, "body": body}


def _about(body: Mapping[str, Any], dialogs: Sequence[Part]) -> int | list[int]:
    """Return the dialogs that an annotation is about: the leg that it names, else all that can have a conversation."""
    for index, dialog in enumerate(dialogs):
        if body.get("call_id") is not None and body["call_id"] == dialog.get("message_id"):
            return index
    recordings = [index for index, dialog in enumerate(dialogs) if dialog["type"] == "recording"]
    return recordings or list(range(len(dialogs)))
