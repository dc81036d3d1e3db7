"""Whether a browser plays a recording as it is, decided by its header. Formats have names that people know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from shared.domain.wav import Header

_PCM, _A_LAW, _MU_LAW, _EXTENSIBLE = 0x0001, 0x0006, 0x0007, 0xFFFE
_NAMES: Mapping[int, str] = {
    _PCM: "PCM",
    0x0002: "Microsoft ADPCM",
    0x0003: "floating-point PCM",
    _A_LAW: "A-law",
    _MU_LAW: "\N{MICRO SIGN}-law",
    0x0011: "IMA ADPCM",
    0x0014: "G.723 ADPCM",
    0x0022: "TrueSpeech",
    0x0031: "GSM 6.10",
    0x0038: "NMS ADPCM",
    0x0040: "G.721 ADPCM",
    0x0042: "G.723.1",
    0x0045: "G.726 ADPCM",
    0x0050: "MPEG audio",
    0x0055: "MP3",
    0x0057: "AMR",
    0x0058: "AMR-WB",
    0x0064: "G.726 ADPCM",
    0x0065: "G.722",
    0x0083: "G.729",
    0x00FF: "AAC",
    0x028F: "G.722",
    0xA109: "Speex",
    _EXTENSIBLE: "PCM with an extended header",
}
_READ_BY_LIBSNDFILE = frozenset({_PCM, 0x0002, 0x0003, _A_LAW, _MU_LAW, 0x0011, 0x0031, 0x0038, 0x0040, 0x0055, _EXTENSIBLE})
_SIMPLE_BITS: Mapping[int, tuple[int, ...]] = {_PCM: (8, 16), _A_LAW: (8,), _MU_LAW: (8,)}
_MAX_CHANNELS = 2
# Rates that Chromium, Firefox and Safari play.
_MIN_RATE, _MAX_RATE = 3000, 192_000


class Player(StrEnum):
    """What the page's player plays."""

    ORIGINAL = "original"
    PREVIEW = "preview"


@dataclass(frozen=True, slots=True)
class Playback:
    """How a stored recording is presented.

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


def plays_everywhere(header: Header, size: int) -> bool:
    """Return whether Chromium, Firefox and Safari all play a file of `size` bytes. When in doubt, it is not so."""
    audio, frame = header.format, header.format.channels * header.format.bits // 8
    return (
        audio.bits in _SIMPLE_BITS.get(audio.encoding, ())
        and audio.channels <= _MAX_CHANNELS
        and has_playable_rate(header)
        and audio.byte_rate == audio.sample_rate * frame
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
    return f"{name} with {audio.bits} bits" if audio.encoding == _PCM else name


def capitalized(name: str) -> str:
    """Begin a sentence with a format name: `µ-law` stays as it is."""
    return name if name.startswith(_NAMES[_MU_LAW]) else name[:1].upper() + name[1:]
