"""Checks of vCons: the JSON Schemas of the drafts, the rules that only their text has, and a reader that rebuilds the record."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft7Validator

from console.vcon.document import RECORD, RECORDINGS

_SCHEMAS = Path("tests/unit/vcon/schemas")
_DISPOSITIONS = {"no-answer", "congestion", "failed", "busy", "hung-up", "voicemail-no-message"}
_CONTENT = {"url", "content_hash", "body", "encoding"}
_HASH = re.compile(r"sha512-[A-Za-z0-9_-]{86}|sha256-[A-Za-z0-9_-]{43}")
_TEL = re.compile(r"\+[0-9]+|[0-9A-F*#().-]+;phone-context=[a-z0-9.-]+")
_CC_PARTY, _CC_DIALOG = {"role", "contact_list"}, {"campaign", "interaction_type", "interaction_id", "skill"}


@cache
def _validators() -> tuple[Draft7Validator, ...]:
    checker = Draft7Validator.FORMAT_CHECKER
    return tuple(
        Draft7Validator(json.loads((_SCHEMAS / name).read_text()), format_checker=checker) for name in ("vcon.json", "cc.json")
    )


def problems_of(vcon: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with an unsigned vCon. It must be read from JSON."""
    core, extension = _validators()
    found = [f"{error.json_path}: {error.message}" for each in (core, extension) for error in each.iter_errors(vcon)]
    known = core.schema["definitions"]  # type: ignore[index]
    found += _unknown("vcon", vcon, core.schema["properties"])  # type: ignore[index]
    for kind, names, more in (("parties", "Party", _CC_PARTY), ("dialog", "Dialog", _CC_DIALOG)):
        for index, each in enumerate(vcon[kind]):
            found += _unknown(f"{kind}/{index}", each, {*known[names]["properties"], *more})
    for kind, names in (("attachments", "Attachment"), ("analysis", "Analysis")):
        for index, each in enumerate(vcon[kind]):
            found += _unknown(f"{kind}/{index}", each, known[names]["properties"])
            found += [] if {"body", "encoding", "mediatype"} <= each.keys() else [f"{kind}/{index} has no content"]
    return found + _rules(vcon)


def _unknown(where: str, value: Mapping[str, Any], known: object) -> list[str]:
    return [f"{where} has the unknown {name}" for name in value if name not in known]  # type: ignore[operator]


def _rules(vcon: Mapping[str, Any]) -> list[str]:
    """Check what the text demands and the schemas do not."""
    found = []
    if (uuid.UUID(vcon["uuid"]).version, uuid.UUID(vcon["uuid"]).variant) != (8, uuid.RFC_4122):
        found.append("the uuid is not of version 8")
    if "redacted" in vcon or "critical" in vcon or vcon["extensions"] != ["CC"]:
        found.append("redacted, critical or an unexpected extension")
    if not vcon["created_at"] <= vcon["updated_at"]:
        found.append("updated before it was created")
    found += [f"party {index} has a tel that is none" for index, each in enumerate(vcon["parties"]) if not _is_tel(each)]
    for index, dialog in enumerate(vcon["dialog"]):
        found += [f"dialog {index}: {problem}" for problem in _rules_of_dialog(dialog, len(vcon["parties"]))]
    for kind in ("analysis", "attachments"):
        for each in vcon[kind]:
            found += [f"{kind} about a dialog that is none" for at in _flat(each["dialog"]) if at >= len(vcon["dialog"])]
            found += [] if each.get("party", 0) < len(vcon["parties"]) else [f"{kind} of a party that is none"]
    return found


def _is_tel(party: Mapping[str, Any]) -> bool:
    return "tel" not in party or _TEL.fullmatch(party["tel"]) is not None


def _rules_of_dialog(dialog: Mapping[str, Any], parties: int) -> list[str]:
    found = []
    if dialog["type"] == "incomplete":
        found += [] if dialog.get("disposition") in _DISPOSITIONS else ["no disposition"]
        found += ["content of an incomplete dialog"] if _CONTENT & dialog.keys() else []
    elif dialog["type"] == "recording":
        found += ["a disposition of a recording"] if "disposition" in dialog else []
        found += ["a URL without hash"] if "url" in dialog and "content_hash" not in dialog else []
        found += [] if _HASH.fullmatch(dialog.get("content_hash", "sha512-" + 86 * "a")) else ["a malformed hash"]
    else:
        found.append("an unexpected type")
    present = set(_flat(dialog["parties"]))
    found += ["a party that is none"] if any(index >= parties for index in present) else []
    history = dialog.get("party_history", [])
    found += ["an event of a party that is not there"] if any(event["party"] not in present for event in history) else []
    found += ["events out of order"] if [event["time"] for event in history] != sorted(event["time"] for event in history) else []
    return found


def _flat(value: object) -> list[int]:
    if isinstance(value, int):
        return [value]
    return [index for each in value for index in _flat(each)] if isinstance(value, Sequence) else []


def record_of(vcon: Mapping[str, Any]) -> dict[str, Any]:
    """Rebuild the record of a call from its vCon."""
    (record,) = [each["body"] for each in vcon["attachments"] if each["purpose"] == RECORD]
    if not record.get("annotations"):
        return dict(record)
    annotations = [
        {**{name: value for name, value in each.items() if name != "body_at"}, "body": _at(vcon, each["body_at"])}
        for each in record["annotations"]
    ]
    return {**record, "annotations": annotations}


def recordings_of(vcon: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Read what a vCon says about the recordings."""
    return next((each["body"] for each in vcon["attachments"] if each["purpose"] == RECORDINGS), [])


def core_of(vcon: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rebuild from parties and dialogs alone, as a program does that has never heard of Callfold."""
    return [
        {
            "call_id": dialog["message_id"],
            "call_type": dialog["interaction_type"],
            "queue": dialog.get("skill", [None])[0],
            "people": [vcon["parties"][index] for index in dict.fromkeys(_flat(dialog["parties"]))],
            "talked": dialog["type"] == "recording",
            "times": {
                (event["event"], event["time"])
                for event in dialog.get("party_history", [])
                if vcon["parties"][event["party"]] in [vcon["parties"][index] for index in _flat(dialog["parties"])]
            },
        }
        for dialog in vcon["dialog"]
        if "message_id" in dialog
    ]


def _at(vcon: Mapping[str, Any], pointer: str) -> Any:  # noqa: ANN401 - any JSON
    value: Any = vcon
    for part in pointer.split("/")[1:]:
        value = value[int(part) if isinstance(value, list) else part]
    return value
