"""Whether a browser plays a recording as it is, decided by its header. Formats have names that people know."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from shared.domain.wav import Header, InvalidWavError, parse_header
from shared.domain.wav_format import A_LAW, EXTENSIBLE, FLOAT, GSM_610, IMA_ADPCM, MP3, MS_ADPCM, MU_LAW, PCM

_NMS_ADPCM, _G721 = 0x0038, 0x0040
_NAMES: Mapping[int, str] = {
    PCM: "PCM",
    MS_ADPCM: "Microsoft ADPCM",
    FLOAT: "floating-point PCM",
    A_LAW: "A-law",
    MU_LAW: "\N{MICRO SIGN}-law",
    IMA_ADPCM: "IMA ADPCM",
    0x0014: "G.723 ADPCM",
    0x0022: "TrueSpeech",
    GSM_610: "GSM 6.10",
    _NMS_ADPCM: "NMS ADPCM",
    _G721: "G.721 ADPCM",
    0x0042: "G.723.1",
    0x0045: "G.726 ADPCM",
    0x0050: "MPEG audio",
    MP3: "MP3",
    0x0057: "AMR",
    0x0058: "AMR-WB",
    0x0064: "G.726 ADPCM",
    0x0065: "G.722",
    0x0083: "G.729",
    0x00FF: "AAC",
    0x028F: "G.722",
    0xA109: "Speex",
    EXTENSIBLE: "PCM with an extended header",
}
_READ_BY_LIBSNDFILE = frozenset({PCM, MS_ADPCM, FLOAT, A_LAW, MU_LAW, IMA_ADPCM, GSM_610, MP3, _NMS_ADPCM, _G721, EXTENSIBLE})
_SIMPLE_BITS: Mapping[int, tuple[int, ...]] = {PCM: (8, 16), A_LAW: (8,), MU_LAW: (8,)}
_MAX_CHANNELS = 2
# Rates that Chromium, Firefox and Safari play.
_MIN_RATE, _MAX_RATE = 3000, 192_000


class Player(StrEnum):
    """The file that the page's player plays."""

    ORIGINAL = "original"
    PREVIEW = "preview"


@dataclass(frozen=True, slots=True)
class Playback:
    """Presentation of a stored recording.

    Attributes:
        player: None if no browser plays the recording and it cannot be converted.
        is_drawn: whether there is a picture of it.
        note: a sentence for a listener: what is converted, or why there is no player.
        can_download: whether the audio can be downloaded.
    """

    player: Player | None = Player.ORIGINAL
    is_drawn: bool = True
    note: str | None = None
    can_download: bool = True


def read_header(start: bytes) -> Header | None:
    """Parse the header at the start of a file. None: it is damaged, or not all of it is there."""
    file, parser = io.BytesIO(start), parse_header()
    try:
        span = next(parser)
        while True:
            file.seek(span.position)
            span = parser.send(file.read(span.size))
    except StopIteration as stop:
        header: Header = stop.value
        return header
    except InvalidWavError:
        return None


def plays_everywhere(header: Header, start: bytes, size: int) -> bool:
    """Return whether Chromium, Firefox and Safari all play a file of `size` bytes. When in doubt, it is not so."""
    audio, frame = header.format, header.format.channels * header.format.bits // 8
    is_simple = header.order == "<" and not (header.start or header.is_searched or audio.is_extensible)
    return (
        start.startswith(b"RIFF")
        and is_simple
        and audio.bits in _SIMPLE_BITS.get(audio.encoding, ())
        and audio.channels <= _MAX_CHANNELS
        and has_playable_rate(header)
        and audio.byte_rate == audio.sample_rate * frame
        and audio.block_align == frame
        and header.audio.has_length
        and header.audio.length >= frame
        and header.audio.body + frame <= size
    )


def may_be_converted(header: Header) -> bool:
    """Return whether libsndfile knows the format. Whether it reads the file is only seen when it does."""
    return header.format.encoding in _READ_BY_LIBSNDFILE


def has_playable_rate(header: Header) -> bool:
    return _MIN_RATE <= header.format.sample_rate <= _MAX_RATE


def format_name(header: Header) -> str:
    """Name the audio format: `GSM 6.10`, `PCM with 24 bits`, or its number if it is unknown."""
    audio = header.format
    name = _NAMES.get(audio.encoding)
    if name is None:
        return f"audio format {audio.encoding:#06x}"
    return f"{name} with {audio.bits} bits" if audio.encoding == PCM else name


def capitalized(name: str) -> str:
    """Begin a sentence with a format name: `µ-law` stays as it is."""
    return name if name.startswith(_NAMES[MU_LAW]) else name[:1].upper() + name[1:]
