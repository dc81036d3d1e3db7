"""What a client may send as an annotation, over HTTP and on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import orjson
import pytest

from console.annotations.bodies import AnnotationRequest, InvalidAnnotationError, parse_annotation
from console.cli.calls import _ANNOTATIONS
from console.commands.annotate import read_annotation
from shared.domain.annotation import MAX_BODY_BYTES, AnnotationType, annotation_id, body_text
from shared.errors import ConfigError

SEGMENT = {"start": 0, "end": 1.5, "speaker": "agent", "text": "Good morning"}
BODIES: dict[str, dict[str, object]] = {
    "transcript": {"text": "Good morning", "language": "da-DK", "call_id": "7", "engine": "ears 1", "segments": [SEGMENT]},
    "disposition": {"code": "sold", "label": "Sold", "text": "on Monday"},
    "consent": {"status": "granted", "purposes": ["recording"], "party": "dialed", "expires_at": "2027-01-01T00:00:00Z"},
    "note": {"text": "Call back"},
}


def _request(**changed: object) -> bytes:
    return orjson.dumps({"type": "note", "body": {"text": "one"}} | changed)


@pytest.mark.parametrize("kind", BODIES)
def test_each_type_has_its_body_and_a_null_is_left_out(kind: str) -> None:
    new = parse_annotation(_request(type=kind, body=BODIES[kind] | ({"guid": None} if kind == "transcript" else {}), by="kasper"))
    assert (new.type, new.body, new.by) == (kind, BODIES[kind], "kasper")
    assert AnnotationRequest.model_validate({"type": kind, "body": BODIES[kind]}).root.type == kind


def test_the_types_are_the_same_everywhere() -> None:
    assert tuple(AnnotationType) == _ANNOTATIONS == tuple(BODIES)
    assert len(get_args(AnnotationRequest.model_fields["root"].annotation)) == len(BODIES)


@pytest.mark.parametrize(
    ("sent", "parameter", "sentence"),
    [
        (b"{", "request", "The body is not JSON."),
        (b'{"type": "note", "body": {"text": "\\ud800"}}', "request", "The body is not JSON."),
        (b"[]", "request", "The request must be a JSON object."),
        (_request(type="rumour"), "type", "type must be one of"),
        (_request(type=None), "type", "type must be one of"),
        (_request(body=[]), "body", "body must be an object of names and values."),
        (_request(body={}), "body.text", "body.text is missing."),
        (_request(body={"text": ""}), "body.text", "body.text must not be empty."),
        (_request(body={"text": "x" * 65_537}), "body.text", "body.text must have at most 65536 characters."),
        (_request(body={"text": "x", "txt": "y"}), "body.txt", "body.txt is unknown. Did you mean text?"),
        (_request(by="x" * 129), "by", "by must have at most 128 characters."),
        (_request(at="now"), "at", "at is unknown."),
        (_request(type="disposition", body={"code": 7}), "body.code", "body.code must be text."),
        (
            _request(type="consent", body={"status": "maybe"}),
            "body.status",
            "body.status must be one of granted, denied, withdrawn",
        ),
        (
            _request(type="transcript", body={"text": "x", "segments": [SEGMENT | {"start": "0"}]}),
            "body.segments.0.start",
            "body.",
        ),
        (_request(type="transcript", body={"text": "x", "segments": [SEGMENT | {"end": -1}]}), "body.segments.0.end", "body."),
        (_request(type="transcript", body={"text": "x", "call_id": "7/.."}), "body.call_id", "body.call_id must match"),
    ],
)
def test_what_is_not_an_annotation_is_refused_by_name(sent: bytes, parameter: str, sentence: str) -> None:
    with pytest.raises(InvalidAnnotationError) as refused:
        parse_annotation(sent)
    assert refused.value.parameter == parameter
    assert str(refused.value).startswith(sentence)


def test_a_body_that_grows_when_it_is_stored_is_still_bounded() -> None:
    text = '{"text":"x","segments":[' + ",".join(['{"start":1e5,"end":1e5,"text":""}'] * 7000) + "]}"
    assert len(text) < MAX_BODY_BYTES
    with pytest.raises(ValueError, match="more than 262144"):
        body_text(orjson.loads(text))


def test_a_key_may_have_any_bytes_and_another_key_is_another_annotation() -> None:
    keys = ["\udcff", "\u00ff", "\\udcff", "y"]  # the first is what a header or an argument that is no UTF-8 becomes
    assert len({annotation_id("acme", "513", key) for key in keys}) == len(keys)


def test_the_command_reads_a_text_a_file_of_text_and_a_file_with_a_body(tmp_path: Path) -> None:
    for kind, field in (("note", "text"), ("transcript", "text"), ("disposition", "code")):
        assert read_annotation(kind, "one", None, None).body == {field: "one"}
    assert read_annotation("consent", "granted", None, "kasper").by == "kasper"
    plain, body = tmp_path / "plain.txt", tmp_path / "body.json"
    plain.write_text(" Good\nmorning \n", "utf-8")
    body.write_bytes(orjson.dumps(BODIES["transcript"]))
    assert read_annotation("transcript", None, str(plain), None).body == {"text": "Good\nmorning"}
    assert read_annotation("transcript", None, str(body), None).body == BODIES["transcript"]


@pytest.mark.parametrize(
    ("kind", "text", "content", "problem"),
    [
        ("note", None, None, "either --text or --file"),
        ("note", "one", b"two", "either --text or --file"),
        ("rumour", "one", None, "Expected one of transcript"),
        ("consent", "maybe", None, "body.status must be one of"),
        ("note", None, b"\xff", "Cannot read"),
        ("note", None, b"x" * (MAX_BODY_BYTES + 1), "larger than an annotation may be"),
        ("note", "", None, "must not be empty"),
    ],
)
def test_the_command_refuses_what_it_cannot_send(
    tmp_path: Path, kind: str, text: str | None, content: bytes | None, problem: str
) -> None:
    file = None
    if content is not None:
        file = str(tmp_path / "file")
        Path(file).write_bytes(content)
    with pytest.raises(ConfigError, match=problem):
        read_annotation(kind, text, file, None)


def test_the_command_says_that_a_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Cannot read"):
        read_annotation("note", None, str(tmp_path / "none"), None)
