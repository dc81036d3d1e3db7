"""WAV files as real programs leave them: recorders, converters, taggers, servers, and writers that were killed.

Each kind says what becomes of it. The audio of a whole one lasts `SECONDS`, unless the kind says otherwise.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import soundfile

from shared.domain.recording_flags import Flag
from simulator.audio import recording

SECONDS = 0.5
RATE = 8000
WAV = recording("7", SECONDS)
SAMPLES = WAV[44:]
MU_LAW_BYTES = bytes(range(1, 251)) * 16  # 4000 bytes: half a second of G.711
PCM_FORMAT = struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16)
_EMPTY, _NO_AUDIO, _TRUNCATED, _NONE = "empty", "no_audio", "truncated", "not_a_recording"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of file.

    Attributes:
        flaw: why it is not stored; None if it is.
        flags: what is flagged.
        looks: how many equal answers it takes until it is stored.
        seconds: None if the header does not tell.
    """

    name: str
    content: bytes
    flaw: str | None = None
    flags: frozenset[Flag] = frozenset()
    looks: int = 1
    seconds: float | None = SECONDS


def chunk(name: bytes, body: bytes, declared: int | None = None, *, pad: bool = True, order: str = "<") -> bytes:
    length = len(body) if declared is None else declared
    return struct.pack(f"{order}4sI", name, length) + body + b"\0" * (pad and len(body) % 2)


def riff(*chunks: bytes, declared: int | None = None, form: bytes = b"RIFF", order: str = "<") -> bytes:
    content = b"WAVE" + b"".join(chunks)
    return form + struct.pack(f"{order}I", len(content) if declared is None else declared) + content


def fmt(encoding: int, *, channels: int = 1, rate: int = RATE, byte_rate: int, block: int, bits: int, more: bytes = b"") -> bytes:
    return chunk(b"fmt ", struct.pack("<HHIIHH", encoding, channels, rate, byte_rate, block, bits) + more)


FMT = chunk(b"fmt ", PCM_FORMAT)
DATA = chunk(b"data", SAMPLES)
LIST = chunk(b"LIST", b"INFOISFT" + struct.pack("<I", 8) + b"recorder")
TELEPHONE = fmt(7, byte_rate=RATE, block=1, bits=8, more=bytes(2))


@cache
def encoded(subtype: str, form: str = "WAV", channels: int = 1) -> bytes:
    """Return half a second of a tone, written by libsndfile."""
    tone = (0.3 * np.sin(np.arange(RATE * SECONDS) * 0.3)).astype("float32")
    file = io.BytesIO()
    soundfile.write(file, np.stack([tone] * channels, axis=1), RATE, format=form, subtype=subtype)
    return file.getvalue()


def _with_format(content: bytes, **changed: int) -> bytes:
    """Change fields of the format chunk: `rate`, `byte_rate`, `block` or `bits`."""
    where = {"rate": (4, "<I"), "byte_rate": (8, "<I"), "block": (12, "<H"), "bits": (14, "<H")}
    begin = content.index(b"fmt ") + 8
    changed_content = bytearray(content)
    for name, value in changed.items():
        offset, kind = where[name]
        struct.pack_into(kind, changed_content, begin + offset, value)
    return bytes(changed_content)


def _rf64(form: bytes, *, declared: int = len(SAMPLES), in_chunk: int = 0xFFFFFFFF) -> bytes:
    sizes = chunk(b"ds64", struct.pack("<QQQI", 28 + 8 + len(FMT + DATA) + 4, declared, len(SAMPLES) // 2, 0))
    return riff(sizes, FMT, chunk(b"data", SAMPLES, in_chunk), declared=0xFFFFFFFF, form=form)


def _stored() -> Iterator[Kind]:
    """Yield files that are stored without a flag, at the first look."""
    yield Kind("plain", WAV)
    yield Kind("audio of one byte too few for a frame", riff(FMT, chunk(b"data", SAMPLES + b"\0")))
    yield Kind("LIST behind", riff(FMT, DATA, LIST))
    yield Kind("id3 chunk behind", riff(FMT, DATA, chunk(b"id3 ", b"ID3\3\0\0\0\0\0\0")))
    yield Kind("LIST before", riff(FMT, LIST, DATA))
    yield Kind("bext and JUNK before fmt", riff(chunk(b"bext", bytes(602)), chunk(b"JUNK", bytes(28)), FMT, DATA))
    yield Kind("large JUNK", riff(chunk(b"JUNK", bytes(4044)), FMT, DATA))
    yield Kind("JUNK larger than what is searched", riff(chunk(b"JUNK", bytes(70_000)), FMT, chunk(b"JUNK", bytes(70_000)), DATA))
    yield Kind("odd chunk with pad", riff(FMT, chunk(b"note", b"odd"), DATA))
    yield Kind("odd chunk without pad", riff(FMT, chunk(b"note", b"odd", pad=False), DATA))
    yield Kind("odd chunk without pad before fmt", riff(chunk(b"JUNK", b"odd", pad=False), FMT, DATA))
    yield Kind("chunk with a name of Latin-1", riff(FMT, chunk(b"\xa9nam", b"Anruf"), DATA))
    yield Kind("fmt of 18 bytes", riff(chunk(b"fmt ", PCM_FORMAT + bytes(2)), DATA))
    yield Kind("fmt of 14 bytes", riff(chunk(b"fmt ", PCM_FORMAT[:14]), DATA))
    yield Kind("fmt of 60 bytes", riff(chunk(b"fmt ", PCM_FORMAT + bytes(44)), DATA))
    yield Kind("odd audio, missing pad byte", riff(TELEPHONE, chunk(b"data", MU_LAW_BYTES[:-1], pad=False)), seconds=3999 / RATE)
    yield Kind(
        "odd audio, then LIST without pad",
        riff(TELEPHONE, chunk(b"data", MU_LAW_BYTES[:-1], pad=False), LIST),
        seconds=3999 / RATE,
    )
    yield Kind("odd audio with pad", riff(TELEPHONE, chunk(b"data", MU_LAW_BYTES[:-1])), seconds=3999 / RATE)
    yield Kind(
        "pad byte not in the total",
        riff(TELEPHONE, chunk(b"data", MU_LAW_BYTES[:-1]), declared=49 - 4 - 4 + 3999 - 3),
        seconds=3999 / RATE,
    )
    yield Kind("audio before fmt", riff(DATA, FMT))
    yield Kind("empty data chunk, then the audio", riff(FMT, chunk(b"data", b""), DATA))
    yield Kind(
        "RIFX",
        riff(
            chunk(b"fmt ", struct.pack(">HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16), order=">"),
            chunk(b"data", SAMPLES, order=">"),
            form=b"RIFX",
            order=">",
        ),
    )
    yield Kind("RF64", _rf64(b"RF64"))
    yield Kind("BW64", _rf64(b"BW64"))
    yield Kind("RF64 with the size in the chunk", _rf64(b"RF64", in_chunk=len(SAMPLES)))
    yield Kind("RIFF with a placeholder for ds64", riff(chunk(b"JUNK", bytes(28)), FMT, DATA))


def _encodings() -> Iterator[Kind]:
    """Yield whole files of many encodings, many with wrong fields in fmt."""
    for form in ("WAV", "WAVEX", "RF64"):
        for subtype in ("PCM_16", "PCM_24", "PCM_32", "PCM_U8", "FLOAT", "DOUBLE", "ULAW", "ALAW"):
            yield Kind(f"{form} {subtype}", encoded(subtype, form))
    for subtype in ("IMA_ADPCM", "MS_ADPCM", "GSM610", "G721_32", "NMS_ADPCM_16", "NMS_ADPCM_32"):
        yield Kind(subtype, encoded(subtype))
        yield Kind(f"{subtype}, wrong byte rate", _with_format(encoded(subtype), byte_rate=16_000))
    yield Kind("stereo IMA ADPCM, byte rate 0", _with_format(encoded("IMA_ADPCM", channels=2), byte_rate=0))
    yield Kind("stereo MS ADPCM, byte rate of PCM", _with_format(encoded("MS_ADPCM", channels=2), byte_rate=32_000))
    yield Kind("IMA ADPCM, block 0", _with_format(encoded("IMA_ADPCM"), block=0, byte_rate=0))
    yield Kind("PCM, byte rate 0", _with_format(WAV, byte_rate=0))
    yield Kind("PCM, wrong byte rate", _with_format(WAV, byte_rate=8000))
    yield Kind("PCM, wrong block", _with_format(WAV, block=1))
    yield Kind("PCM, block 0 and byte rate 0", _with_format(WAV, block=0, byte_rate=0))
    yield Kind("PCM, bits 0", _with_format(WAV, bits=0))
    yield Kind("24 bits in 32", riff(fmt(1, byte_rate=32_000, block=4, bits=24), chunk(b"data", bytes(16_000))))
    yield Kind("mu-law with the fields of PCM", riff(fmt(7, byte_rate=16_000, block=2, bits=16), chunk(b"data", MU_LAW_BYTES)))
    for name, changed in {
        "right": {},
        "PCM's byte rate": {"byte_rate": 32_000},
        "8000 Hz": {"rate": 8000},
        "16 bits": {"bits": 16, "block": 2},
    }.items():
        g722 = riff(fmt(0x28F, rate=16_000, byte_rate=8000, block=1, bits=4), chunk(b"data", MU_LAW_BYTES))
        yield Kind(f"G.722, {name}", _with_format(g722, **changed))
    yield Kind(
        "G.722, registered tag", riff(fmt(0x65, rate=16_000, byte_rate=16_000, block=1, bits=8), chunk(b"data", MU_LAW_BYTES))
    )
    yield Kind("G.726 of 2 bits", riff(fmt(0x45, byte_rate=9, block=1, bits=2), chunk(b"data", bytes(1000))))
    yield Kind("Dialogic ADPCM", riff(fmt(0x17, byte_rate=0, block=1, bits=4), chunk(b"data", bytes(2000))))
    yield Kind("G.729", riff(fmt(0x83, byte_rate=9, block=20, bits=0), chunk(b"data", bytes(500))))
    mp3 = struct.pack("<HHIHHH", 12, 1, 2, 36, 1, 0)
    mp3_format = fmt(0x55, byte_rate=9, block=1, bits=0, more=mp3)
    yield Kind("MP3 with fact", riff(mp3_format, chunk(b"fact", struct.pack("<I", 4000)), chunk(b"data", bytes(252))))
    yield Kind("MP3 by its block", riff(mp3_format, chunk(b"data", bytes(252))), seconds=252 * 576 // 36 / RATE)
    unknown = fmt(0x1234, byte_rate=1000, block=1, bits=0)
    yield Kind("unknown encoding with fact", riff(unknown, chunk(b"fact", struct.pack("<I", 4000)), chunk(b"data", bytes(800))))
    yield Kind("unknown encoding", riff(unknown, chunk(b"data", bytes(500))), seconds=None)
    yield Kind(
        "GSM with a fact of nonsense",
        encoded("GSM610").replace(struct.pack("<4sII", b"fact", 4, 4000), struct.pack("<4sII", b"fact", 4, 9)),
        seconds=13 * 320 / RATE,
    )


def _flagged() -> Iterator[Kind]:
    """Yield whole audio with wrong sizes, or other bytes around it."""
    total, trailing, untold = (frozenset({flag}) for flag in (Flag.RIFF_SIZE, Flag.TRAILING_BYTES, Flag.SIZE_UNKNOWN))
    for declared in (0, 0x7FFFFFFF, 0xFFFFFFFF):
        yield Kind(f"total of {declared:X}", riff(FMT, DATA, declared=declared), flags=untold, looks=2)
    for declared in (4, 8, 36, 44, 4088, len(WAV), len(WAV) + 36, 0x12345678):
        yield Kind(f"total of {declared:X}", riff(FMT, DATA, declared=declared), flags=total)
    yield Kind("LIST behind the total", riff(FMT, DATA) + LIST, flags=total)
    behind = {"CRLF": b"\r\n", "ID3v1": b"TAG" + bytes(125), "ID3v2": b"ID3\3\0\0\0\0\0\x7f" + b"\1" * 127, "zeros": bytes(512)}
    behind |= {"LIST that is cut": LIST[:-3], "LIST of a wrong size": chunk(b"LIST", b"INFO", 400), "a line feed": b"\n"}
    for name, more in behind.items():
        yield Kind(f"{name} behind", WAV + more, flags=trailing)
    yield Kind("something behind", WAV + b"\x81\x92--boundary--", flags=trailing, looks=2)
    yield Kind("audio that only the total counts", riff(FMT, chunk(b"data", SAMPLES, 100)), flags=trailing, looks=2)
    not_counted = riff(FMT, chunk(b"data", SAMPLES, 100), declared=136)
    yield Kind("audio behind that is not counted", not_counted, flags=trailing, looks=2, seconds=50 / RATE)
    sizes = frozenset({Flag.CHUNK_SIZES})
    for excess in (8, 36, 44):
        too_long = riff(FMT, chunk(b"data", SAMPLES, len(SAMPLES) + excess))
        yield Kind(f"{excess} bytes of headers counted as audio", too_long, flags=sizes, looks=2)
    too_long = riff(FMT, chunk(b"data", SAMPLES, len(WAV)), declared=len(WAV))
    yield Kind("size of the file in both fields", too_long, flags=sizes, looks=2)
    untold_part = riff(FMT, DATA, chunk(b"data", SAMPLES, 0xFFFFFFFF))
    yield Kind("second data chunk of untold size", untold_part, flags=trailing | {Flag.MORE_AUDIO}, looks=2)
    yield Kind("two data chunks", riff(FMT, DATA, DATA), flags=frozenset({Flag.MORE_AUDIO}))
    yield Kind(
        "LIST too long, hides the audio", riff(FMT, chunk(b"LIST", b"INFO", 5000), DATA), flags=frozenset({Flag.CHUNK_SIZES})
    )
    gsm = encoded("GSM610")
    hidden = gsm[:12] + chunk(b"LIST", b"INFO", 100) + gsm[12:]
    yield Kind("GSM, LIST too long before it", hidden, flags=frozenset({Flag.CHUNK_SIZES, Flag.RIFF_SIZE}))
    yield Kind("fmt too long", riff(chunk(b"fmt ", PCM_FORMAT, 18), DATA), flags=frozenset({Flag.CHUNK_SIZES}))
    yield Kind(
        "name of the audio in a chunk", riff(FMT, chunk(b"JUNK", b"data"), bytes(3), DATA), flags=frozenset({Flag.CHUNK_SIZES})
    )
    yield Kind("zeros between the chunks", riff(FMT, bytes(6), DATA), flags=frozenset({Flag.CHUNK_SIZES}))
    yield Kind("CRLF before", b"\r\n" + WAV, flags=frozenset({Flag.LEADING_BYTES}))
    yield Kind("ID3 before", b"ID3\3\0\0\0\0\0\x05hello" + WAV, flags=frozenset({Flag.LEADING_BYTES}))
    spellings = [(0, 0), (0xFFFFFFFF, 0xFFFFFFFF), (0x7FFFF024, 0x7FFFF000), (0x80000024, 0x80000000), (0x7FFF0024, 0x7FFF0000)]
    spellings += [(0xFFFFFFFF, 0xFFFFFFDB), (0x7FFFFFFF, 0x7FFFFFDB), (0xFFFFFFFE, 0xFFFFFFDA), (len(WAV) - 8, 0)]
    for declared, audio in [*spellings, (36, 0), (8, 0)]:
        content = riff(FMT, chunk(b"data", SAMPLES, audio), declared=declared)
        yield Kind(f"sizes {declared:X}/{audio:X}", content, flags=untold, looks=2)
    yield Kind(
        "sizes FF8/0", riff(FMT, chunk(b"JUNK", bytes(4044)), chunk(b"data", SAMPLES, 0), declared=4088), flags=untold, looks=2
    )
    yield Kind("RF64 with sizes 0", _rf64(b"RF64", declared=0), flags=untold, looks=2)
    yield Kind("RF64 with sizes FF", _rf64(b"RF64", declared=(1 << 64) - 1), flags=untold, looks=2)
    yield Kind(
        "RF64 without ds64",
        riff(FMT, chunk(b"data", SAMPLES, 0xFFFFFFFF), form=b"RF64", declared=0xFFFFFFFF),
        flags=untold,
        looks=2,
    )


def _killed() -> Iterator[Kind]:
    """Yield what writers leave that were killed after they wrote the sizes, and what must not be taken for that."""
    total, trailing = frozenset({Flag.RIFF_SIZE}), frozenset({Flag.TRAILING_BYTES})
    outdated = frozenset({Flag.SIZES_OUTDATED})
    killed = WAV + SAMPLES * 9
    yield Kind("writer killed, sizes of a tenth", killed, flags=outdated, looks=2, seconds=5.0)
    yield Kind("writer killed in a sample", killed + b"\x55", flags=outdated, looks=2, seconds=None)
    law = riff(TELEPHONE, chunk(b"data", MU_LAW_BYTES)) + MU_LAW_BYTES * 9
    yield Kind("writer of mu-law killed", law, flags=outdated, looks=2, seconds=5.0)
    blocks = encoded("GSM610")[60:905]
    gsm_killed = encoded("GSM610")[:905] + blocks * 9
    yield Kind("writer of GSM killed", gsm_killed, flags=outdated, looks=2, seconds=130 * 320 / RATE)
    yield Kind("writer of GSM killed in a block", gsm_killed[:-9], flags=outdated, looks=2, seconds=None)
    page = b"<br />\n<b>Warning</b>: fopen(): No such file or directory in <b>rec.php</b> on line 7\n" * 300
    yield Kind("a second of text behind", WAV + page, flags=trailing, looks=2)
    yield Kind("a tag of a second behind", WAV + b"ID3\3\0\0\0\0\0\x7f" + SAMPLES * 9, flags=trailing)
    yield Kind("many zeros behind", WAV + bytes(80_000), flags=trailing, looks=2)
    yield Kind("silence behind, then audio", WAV + bytes(40_000) + SAMPLES, flags=outdated, looks=2, seconds=3.5)
    yield Kind("a LIST of a second behind", WAV + chunk(b"LIST", SAMPLES * 9), flags=total)


def _refused() -> Iterator[Kind]:
    for declared, audio in [(0, 0), (36, 0), (8, 0), (0xFFFFFFFF, 0xFFFFFFFF), (0x7FFFF024, 0x7FFFF000)]:
        content = riff(FMT, chunk(b"data", b"", audio), declared=declared)
        yield Kind(f"only a header, {declared:X}/{audio:X}", content, _EMPTY)
    yield Kind("only a header with JUNK", riff(FMT, chunk(b"JUNK", bytes(4044)), chunk(b"data", b"", 0), declared=4088), _EMPTY)
    yield Kind("no data chunk", riff(FMT), _EMPTY)
    yield Kind("no audio, LIST behind", riff(FMT, chunk(b"data", b""), LIST), _NO_AUDIO)
    yield Kind("no audio, LIST cut off behind", riff(FMT, chunk(b"data", b""), LIST[:-9]), _NO_AUDIO)
    yield Kind("no audio, id3 and LIST behind", riff(FMT, chunk(b"data", b""), chunk(b"id3 ", b"odd"), LIST), _NO_AUDIO)
    yield Kind("no audio, FFFFFFFF, LIST behind", riff(FMT, chunk(b"data", b"", 0xFFFFFFFF), LIST), _NO_AUDIO)
    yield Kind("no audio, CRLF behind", riff(FMT, chunk(b"data", b"")) + b"\r\n", _NO_AUDIO)
    yield Kind("no audio, only LIST", riff(FMT, LIST), _NO_AUDIO)
    yield Kind("half a sample", riff(FMT, chunk(b"data", b"x")), _NO_AUDIO)
    for audio in (8, 36, 44):
        yield Kind(f"no audio of {audio} bytes", riff(FMT, chunk(b"data", b"", audio)), _TRUNCATED)
    yield Kind("audio cut off", WAV[:-1], _TRUNCATED)
    yield Kind("audio cut off at its beginning", WAV[:44], _TRUNCATED)
    yield Kind("cut off in the header", WAV[:30], _TRUNCATED)
    yield Kind("more declared than there is", riff(FMT, chunk(b"data", SAMPLES, len(SAMPLES) + 40)), _TRUNCATED)
    for lacking in (8, 36, 44):
        yield Kind(f"{lacking} bytes cut off", WAV[:-lacking], _TRUNCATED)
    yield Kind("RF64 cut off", _rf64(b"RF64", declared=len(SAMPLES) + 2), _TRUNCATED)
    yield Kind("second data chunk cut off", riff(FMT, DATA, DATA)[:-100], _TRUNCATED)
    yield Kind("no fmt", riff(DATA), _NONE)
    yield Kind("fmt of nothing", riff(chunk(b"fmt ", bytes(16)), DATA), _NONE)
    yield Kind("RIFX with numbers of RIFF", b"RIFX" + WAV[4:], _NONE)
    yield Kind("MP3 without RIFF", b"\xff\xfb\x90\x64" + bytes(400), _NONE)
    yield Kind("Ogg", b"OggS" + bytes(400), _NONE)
    yield Kind("AIFF", b"FORM" + bytes(4) + b"AIFF" + bytes(400), _NONE)
    yield Kind("RIFF of a film", WAV.replace(b"WAVE", b"AVI ", 1), _NONE)


KINDS = [*_stored(), *_encodings(), *_flagged(), *_killed(), *_refused()]
