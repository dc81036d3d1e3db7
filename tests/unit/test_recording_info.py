"""What a sidecar says of a recording survives being read and written, whichever version of Callfold wrote it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import orjson
import pytest

from shared.amqp.publisher import Message, Publisher
from shared.archive.sidecar import updated_sidecar
from shared.archive.storage import Archive
from shared.domain.recording import RecordingState
from shared.domain.recording_info import RECORDING_EVENT_FIELDS, RecordingInfo
from shared.retention.expiry import Expired, Expiry
from shared.state.store import Store
from tests.helpers.recordings import job
from worker.download.failures import Result
from worker.recordings.outcomes import OutcomePublisher
from worker.recordings.sidecars import Sidecars

AT = "2026-11-23T07:44:00.000000Z"
STORED: dict[str, Any] = {
    **dict.fromkeys(RECORDING_EVENT_FIELDS),
    "at": AT,
    "uri": "file:///a/b.wav",
    "bytes": 24044,
    "sha256": "a" * 64,
    "seconds": 1.5,
    "state": "stored",
}
SEALED = {"encryption": {"scheme": "age", "recipient": None}, "stored_bytes": 9, "stored_sha256": "b" * 64}


@pytest.mark.parametrize(
    "entry",
    [
        {"state": "not_recorded"},
        {"state": "waiting", "reason": "not_found", "attempts": 2, "at": AT},
        STORED,
        STORED | SEALED | {"suffix": "/12345678"},
        STORED | {"state": "waiting"},
        STORED | {"flags": []},
        STORED | SEALED | {"sha512": "c" * 128, "stored_sha512": "d" * 128},
        STORED | {"flags": ["riff_size", "of a newer release"], "kept": "file:///q/b.wav"},
        {name: value for name, value in STORED.items() if name != "state"},
        STORED | {"state": "expiring", "was": "stored", "expired_at": AT, "missing": ["b.wav"]},
        {"state": "expired", "record_expired_at": AT},
        STORED | {"newer": {"than": "this"}, "and": None},
        {"state": "waiting", "uri": None, "at": None},
        STORED | {"sha256": 5, "state": "newer", "was": ["x"], "bytes": "many"},
    ],
)
def test_an_entry_is_written_as_it_was_read(entry: dict[str, Any]) -> None:
    info = RecordingInfo.from_json(entry)
    assert orjson.loads(orjson.dumps(info.to_json())) == entry
    assert RecordingInfo.from_json(entry) == info


def test_a_field_that_cannot_be_understood_counts_as_unknown() -> None:
    info = RecordingInfo.from_json(STORED | {"sha256": 5, "state": "newer"})
    assert (info.sha256, info.state, info.is_stored) == (None, None, False)
    assert RecordingInfo.from_json({"uri": "x"}).is_stored, "as older versions wrote it"
    assert RecordingInfo.from_json({"state": "stored"}).state is RecordingState.STORED


def test_a_file_is_measured_as_it_is_stored() -> None:
    plain, sealed = RecordingInfo.from_json(STORED), RecordingInfo.from_json(STORED | SEALED)
    assert (plain.file_bytes, plain.file_sha256) == (24044, "a" * 64)
    assert (sealed.file_bytes, sealed.file_sha256) == (9, "b" * 64)
    of_both = {"sha512": "c" * 128, "stored_sha512": "d" * 128}
    assert RecordingInfo.from_json(STORED | {"sha512": "c" * 128}).file_sha512 == "c" * 128
    assert RecordingInfo.from_json(STORED | SEALED | of_both).file_sha512 == "d" * 128
    assert plain.file_sha512 is sealed.file_sha512 is None
    assert RecordingInfo.from_json(STORED | SEALED | {"sha512": "c" * 128}).file_sha512 is None, "of the audio alone"


def test_contents_of_one_leg_have_events_of_their_own() -> None:
    suffixes = [
        RecordingInfo.from_json(STORED | more).event_suffix for more in ({}, {"reason": "other_content"}, {"suffix": "/x"})
    ]
    assert suffixes == ["", "/aaaaaaaa", "/x"]


def test_the_event_of_a_recording_that_a_previous_release_stored_keeps_its_body() -> None:
    assert not {"flags", "sha512"} & RecordingInfo.from_json(STORED).event_data().keys()
    assert RecordingInfo.from_json(STORED | {"flags": []}).event_data()["flags"] == ()


class _Publisher:
    """Keeps the bodies that are published."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    async def publish_until_confirmed(self, messages: list[Message]) -> None:
        self.bodies += [message.body for message in messages]


@pytest.mark.parametrize("is_expired", [False, True])
async def test_the_event_of_a_recording_that_a_previous_release_stored_keeps_its_envelope(*, is_expired: bool) -> None:
    publisher = _Publisher()
    publishing = cast("Publisher", publisher)
    for info in (RecordingInfo.from_json(STORED), RecordingInfo.from_json(STORED | {"schema": 1})):
        of_leg = job("77")
        if is_expired:
            expiry = Expiry(
                cast("Archive", None), publishing, cast("Store", None), AT, with_records=False, is_dry_run=False, done=Expired()
            )
            await expiry._publish(replace(updated_sidecar(of_leg, None, "x.json"), recording=info), info, AT, "")
        else:
            await OutcomePublisher(publishing, cast("Store", None), cast("Sidecars", None)).publish(
                of_leg, Result.STORED, info, ""
            )
    old = ["specversion", "id", "source", "subject", "type", "time", "datacontenttype", "data"]
    assert [list(orjson.loads(body)) for body in publisher.bodies] == [old, [*old[:-1], "dataschema", "partitionkey", "data"]]
