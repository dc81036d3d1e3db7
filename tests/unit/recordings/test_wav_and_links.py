"""Links of recordings, and what is a whole recording."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.config.sources import load_sources
from shared.domain.ids import SourceName
from shared.domain.recording_reasons import Reason
from shared.domain.wav import InvalidWavError
from tests.helpers.recordings import (
    WAV,
    job,
)
from worker.download.failures import FetchError
from worker.download.targets import recording_links
from worker.download.wav_check import read_audio


def test_the_origin_of_a_recording_url_is_replaced_and_values_of_a_template_cannot_leave_it(tmp_path: Path) -> None:
    path = tmp_path / "sources.toml"
    path.write_text(
        '[sources.acme]\nsecret = "x"\nrecording_origin = "http://10.0.0.5:81"\n'
        '[sources.template]\nsecret = "x"\nrecording_url = "https://pbx:1/get/{guid}?nId={call_id}"\n'
        '[sources.elsewhere]\nsecret = "x"\nrecording_url = "https://a/x"\nrecording_origin = "https://b"\n'
    )
    sources = load_sources(path)
    acme, template, elsewhere = (sources[SourceName(name)] for name in ("acme", "template", "elsewhere"))
    for sent in (
        "https://localhost:8080/a/b?nId=7",
        "http://u:p@evil/a/b?nId=7",
        "//evil/a/b?nId=7",
        "https://evil:99/a/b?nId=7#x",
    ):
        assert [link.url for link in recording_links(acme, job(recording_url=sent))] == ["http://10.0.0.5:81/a/b?nId=7"]
    (link,) = recording_links(template, job(recording_url=None, guid="../../x"))
    assert link.url == "https://pbx:1/get/..%2F..%2Fx?nId=7"
    with pytest.raises(FetchError) as refused:
        recording_links(elsewhere, job(recording_url=None))
    assert refused.value.reason is Reason.ORIGIN_NOT_ALLOWED


@given(length=st.integers(0, len(WAV)))
def test_a_part_of_a_recording_is_never_taken_for_a_whole_one(length: int) -> None:
    part = WAV[:length]
    if length < len(WAV) - 1:
        with pytest.raises(InvalidWavError):
            read_audio(io.BytesIO(part), length)
    elif length == len(WAV):
        audio = read_audio(io.BytesIO(part), length)
        assert (audio.seconds, audio.channels, audio.sample_rate) == (1.5, 1, 8000)


def test_a_header_that_ends_in_the_middle_is_refused() -> None:
    part = WAV[:4] + b"\0" * 4 + WAV[8:22]
    with pytest.raises(InvalidWavError):
        read_audio(io.BytesIO(part), len(part))


def test_a_header_whose_sizes_were_never_filled_in_is_read_by_what_is_there() -> None:
    streamed = WAV[:4] + b"\xff" * 4 + WAV[8:40] + b"\xff" * 4 + WAV[44:]
    assert read_audio(io.BytesIO(streamed), len(streamed)).seconds == 1.5
