"""What kind of file a recording is, and whether all of its bytes are heard: decoders skip what they do not expect.

Two files laid end to end, a header that claims less than there is, a transfer that broke off: a decoder plays a part
of each without a word. Here the structure of each kind of file is walked to its end, and what lies behind it, or
lacks, is named.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

UNKNOWN_SIZE = 2**30
"""Bytes; a size of so much or more is what programs write that do not know it yet."""
CUT_SHARE = 0.99
"""A chunk of sound that holds a smaller share of what it claims is cut off; a few lost samples are no reason."""


class AudioError(ValueError):
    """A recording cannot be decoded; the message says why."""


class Container(StrEnum):
    """The kinds of file that are read, in the words of file endings."""

    WAV = "wav"
    AIFF = "aiff"
    CAF = "caf"
    FLAC = "flac"
    OGG = "ogg"
    OPUS = "opus"
    MP3 = "mp3"
    M4A = "m4a"
    WEBM = "webm"


KNOWN = "WAV, AIFF, CAF, FLAC, Ogg, Opus, MP3, M4A or WebM"


def container(content: bytes) -> Container:
    """The kind of a recording, by its first bytes.

    Raises:
        AudioError: it is none that is read.
    """
    start = content[_after_id3(content, 0) :][:64] if content.startswith(b"ID3") else content[:64]
    if start[:4] in (b"RIFF", b"RIFX", b"RF64") and start[8:12] == b"WAVE":
        return Container.WAV
    if start[:4] == b"FORM" and start[8:12] in (b"AIFF", b"AIFC"):
        return Container.AIFF
    if start.startswith(b"OggS"):
        return Container.OPUS if b"OpusHead" in start else Container.OGG
    if start[4:8] == b"ftyp":
        return Container.M4A
    for signature, kind in ((b"caff", Container.CAF), (b"fLaC", Container.FLAC), (_EBML, Container.WEBM)):
        if start.startswith(signature):
            return kind
    if content.startswith(b"ID3") or _frame_length(start, 0) is not None:
        return Container.MP3
    raise AudioError(f"the recording cannot be decoded (it is no {KNOWN})")


def check_whole(content: bytes, kind: Container) -> None:
    """See that a file is one recording, whole, with nothing left over behind it but tags and padding.

    Raises:
        AudioError: it is cut off, or two are joined, or bytes are left over.
    """
    _CHECKS[kind](content)


def with_known_size(content: bytes) -> bytes:
    """A WAV or FLAC written to a pipe, which does not say how long it is, as one that does; any other as it is."""
    if content.startswith(b"fLaC"):
        told, held = _flac_samples(content)
        return (
            content
            if told
            else content[:21] + (int.from_bytes(content[21:26], "big") | held).to_bytes(5, "big") + content[26:]
        )
    found = _sound(content, _LAYOUTS[b"RIFF"]) if content.startswith(b"RIFF") else None
    if found is None or not found[2]:
        return content
    place, size, _ = found
    written = bytearray(content)
    written[4:8] = (len(content) - 8).to_bytes(4, "little")
    written[place - 4 : place] = size.to_bytes(4, "little")
    return bytes(written)


def _cut() -> AudioError:
    return AudioError("the recording is cut off: it holds less sound than its header says")


def _joined() -> AudioError:
    return AudioError(
        "two recordings are joined in one file, of which the first alone is played; decode them, and save them as one"
    )


def _left_over(count: int) -> AudioError:
    return AudioError(
        f"the recording has {count:,} bytes left over behind the sound that its header tells of; export it again, or "
        "take them away"
    )


def _check_rest(content: bytes, place: int, signature: bytes) -> None:
    """See that nothing but tags and padding lies behind a recording that ends at a place."""
    rest = content[place:]
    while rest.strip(b"\0"):
        tag = _tag_length(rest)
        if tag is None:
            raise _joined() if signature in rest[:12] else _left_over(len(content) - place)
        rest = rest[tag:]


def _tag_length(rest: bytes) -> int | None:
    """The bytes of the tag that begins here; None where there is none."""
    if rest.startswith(b"TAG+"):
        return 227
    if rest.startswith(b"TAG"):
        return 128
    if rest.startswith(b"ID3"):
        return _after_id3(rest, 0)
    if rest.startswith(b"APETAGEX"):
        return 32 + int.from_bytes(rest[12:16], "little")
    lyrics = re.match(rb"LYRICSBEGIN.*?LYRICS(?:200|END)", rest, re.DOTALL)
    return lyrics.end() if lyrics else None


def _after_id3(content: bytes, place: int) -> int:
    """Where an ID3v2 tag ends; its size has seven bits a byte."""
    size = 0
    for byte in content[place + 6 : place + 10]:
        size = size << 7 | byte & 0x7F
    footer = 10 if content[place + 5 : place + 6] and content[place + 5] & 0x10 else 0
    return place + 10 + size + footer


@dataclass(frozen=True)
class _Layout:
    """How a kind of file made of chunks is laid out."""

    first: int
    """Where the first chunk begins."""
    width: int
    """Of a size, in bytes."""
    order: Literal["little", "big"]
    padded: bool
    """Whether a byte of padding follows an odd size; some writers leave it out."""
    sound: bytes
    """The name of the chunk of sound."""


_LAYOUTS = {
    b"RIFF": _Layout(12, 4, "little", True, b"data"),
    b"RF64": _Layout(12, 4, "little", True, b"data"),
    b"RIFX": _Layout(12, 4, "big", True, b"data"),
    b"FORM": _Layout(12, 4, "big", True, b"SSND"),
    b"caff": _Layout(8, 8, "big", False, b"data"),
}
"""By the first four bytes."""


def _chunks(content: bytes, place: int, layout: _Layout) -> Iterator[tuple[bytes, int, int]]:
    """The chunks from a place on, as far as their names are ones: (name, where it begins, its size as written)."""
    while place + 4 + layout.width <= len(content):
        name, begins = content[place : place + 4], place + 4 + layout.width
        if not all(0x20 <= byte < 0x7F for byte in name):
            break
        size = int.from_bytes(content[place + 4 : begins], layout.order)
        yield name, begins, size
        place = _end_of_chunk(content, begins, size, layout)


def _end_of_chunk(content: bytes, begins: int, size: int, layout: _Layout) -> int:
    end = begins + size
    return end + (layout.padded and size % 2 == 1 and content[end : end + 1] == b"\0")


def _sound(content: bytes, layout: _Layout) -> tuple[int, int, bool] | None:
    """Where the chunk of sound begins, its bytes, and whether it does not say how many: all that there are, then."""
    for name, begins, size in _chunks(content, layout.first, layout):
        if name != layout.sound:
            continue
        if content[:4] == b"RF64" and content[12:16] == b"ds64":
            size = int.from_bytes(content[28:36], "little")
        there = len(content) - begins
        unknown = size >= UNKNOWN_SIZE and size > there
        if size == 0:  # of a program that was stopped before it knew, where what follows is no chunk
            following = next(_chunks(content, begins, layout), None)
            unknown = bool(content[begins:].strip(b"\0")) and (following is None or sum(following[1:]) > len(content))
        return begins, there if unknown else size, unknown
    return None


def _check_chunks(content: bytes) -> None:
    """Walk a file of chunks: its sound is all there, and nothing but chunks lie behind it."""
    layout = _LAYOUTS[content[:4]]
    found = _sound(content, layout)
    if found is None:
        return  # the decoder says what is wrong with it
    begins, size, unknown = found
    if unknown:
        return
    is_packed = content[:4] == b"caff" and b"alac" in content[:64]  # the last packet is a quarter of a second
    if len(content) - begins < size * (1.0 if is_packed else CUT_SHARE):
        raise _cut()
    place = _end_of_chunk(content, begins, size, layout)
    for name, begins, size in _chunks(content, place, layout):
        if name in _LAYOUTS or begins + size > len(content):
            break
        place = _end_of_chunk(content, begins, size, layout)
    if len(content) - place >= 4 + layout.width:
        _check_rest(content, place, content[:4])


def _check_ogg(content: bytes) -> None:
    """Walk the pages (RFC 3533): one logical stream, with its last page, and nothing behind that."""
    place = _after_id3(content, 0) if content.startswith(b"ID3") else 0
    streams: set[bytes] = set()
    ended = False
    while content[place : place + 4] == b"OggS":
        head = content[place : place + 27]
        segments = content[place + 27 : place + 27 + (head[26] if len(head) == 27 else 0)]
        end = place + 27 + len(segments) + sum(segments)
        if len(head) < 27 or len(segments) < head[26] or end > len(content):
            raise _cut()
        streams.add(head[14:18])
        if len(streams) > 1 or ended:
            raise _joined() if ended else AudioError("the recording holds several streams; export the sound alone")
        ended = bool(head[5] & 4)
        place = end
    if not ended:
        raise _left_over(len(content) - place) if len(content) > place else _cut()
    _check_rest(content, place, b"OggS")


_MP3_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
"""Version's bits → Hz by the bits of the rate (ISO 11172-3, 13818-3, and MPEG 2.5)."""
_MP3_KBIT = {
    (True, 3): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 1): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 3): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 1): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""(MPEG 1, layer's bits) → kbit/s by the bits of the bit rate; 0 is a rate of one's own, of unknown length."""


def _frame_length(content: bytes, place: int) -> int | None:
    """Bytes of the MPEG audio frame that begins here, 0 where it does not tell; None where none begins."""
    head = content[place : place + 4]
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer, kbit, rate = head[1] >> 3 & 3, head[1] >> 1 & 3, head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer == 0 or kbit == 15 or rate == 3:
        return None
    bits, hertz, padding = _MP3_KBIT[version == 3, layer][kbit] * 1000, _MP3_RATES[version][rate], head[2] >> 1 & 1
    if not bits:
        return 0
    if layer == 3:
        return (12 * bits // hertz + padding) * 4
    return (72 if layer == 1 and version != 3 else 144) * bits // hertz + padding


def _check_mp3(content: bytes) -> None:
    _check_rest(content, end_of_mp3(content), b"ID3")


def end_of_mp3(content: bytes) -> int:
    """Where the last frame of an MP3 ends; where the first frame says how many follow, there are as many.

    Raises:
        AudioError: there are more or fewer, or the last one is cut off.
    """
    place, claimed, frames = 0, None, 0
    while place < len(content):
        if content[place : place + 3] == b"ID3":
            place = _after_id3(content, place)
            continue
        length = _frame_length(content, place)
        if length == 0:
            return len(content)  # of free format: nobody but a decoder knows where its frames end
        if length is None:
            break
        if place + length > len(content):
            raise _cut()
        if frames == 0 and claimed is None:
            claimed = _claimed_frames(content[place : place + length])
            frames -= claimed is not None  # the frame that tells is silent, and does not count
        frames += 1
        place += length
    if claimed is not None and frames < claimed - 1:
        raise _cut()
    if claimed is not None and frames > claimed + 1:
        raise _joined()
    return min(place, len(content))


def _claimed_frames(frame: bytes) -> int | None:
    """How many frames follow, where the first tells it, as LAME's and Fraunhofer's do."""
    found = re.search(rb"(?:Xing|Info)...[\x01\x03\x05\x07\x09\x0b\x0d\x0f](....)", frame[:56], re.DOTALL)
    found = found or re.search(rb"VBRI.{10}(....)", frame[:56], re.DOTALL)
    return int.from_bytes(found[1], "big") if found else None


def _crc(width: int, polynomial: int) -> tuple[int, ...]:
    top, table = 1 << (width - 1), []
    for byte in range(256):
        value = byte << (width - 8)
        for _ in range(8):
            value = (value << 1) ^ (polynomial if value & top else 0)
        table.append(value & (2 * top - 1))
    return tuple(table)


_CRC8, _CRC16 = _crc(8, 0x07), _crc(16, 0x8005)
_FLAC_SEARCHED = 2**19
"""Bytes at the end among which a FLAC's last frame begins; only one of very many samples and channels is longer."""

_FLAC_TRIES = 8
"""Places there that look like the beginning of a frame and are tried; a false one is rare."""


def _check_flac(content: bytes) -> None:
    """See that the last frame ends where the file does, and with the last sample that the header tells of."""
    if re.search(rb"fLaC[\x00\x80]\x00\x00\x22", content[_begin_of_flac(content) + 4 :]):
        raise _joined()
    told, held = _flac_samples(content)
    if told > held:
        raise _cut()
    if told and told < held:
        raise AudioError(f"the header tells of {told:,} samples, and the file holds {held:,}; export it again")


def _begin_of_flac(content: bytes) -> int:
    return _after_id3(content, 0) if content.startswith(b"ID3") else 0


def _flac_samples(content: bytes) -> tuple[int, int]:
    """The samples of a channel that a FLAC's header tells of, 0 for none, and those up to the end of its last frame.

    Raises:
        AudioError: there is no whole frame at its end (RFC 9639).
    """
    begins = _begin_of_flac(content)
    header = content[begins + 8 : begins + 42]
    place = end = _without_tags_at_the_end(content)
    tries = 0
    while tries < _FLAC_TRIES and (place := content.rfind(b"\xff", max(begins, end - _FLAC_SEARCHED), place)) >= 0:
        held = _last_sample(content[place : place + 16], int.from_bytes(header[:2], "big"))
        tries += held is not None
        if held is not None and not _checksum(content[place:end]):
            return int.from_bytes(header[13:18], "big") & (2**36 - 1), held
    raise AudioError(
        "the recording is cut off, or bytes are left over behind its sound: it does not end with a whole frame"
    )


def _without_tags_at_the_end(content: bytes) -> int:
    end = len(content)
    if content[end - 128 : end - 125] == b"TAG":
        end -= 128
    if content[end - 32 : end - 24] == b"APETAGEX":
        end -= int.from_bytes(content[end - 20 : end - 16], "little")
        end -= 32 if content[end - 32 : end - 24] == b"APETAGEX" else 0
    return max(end, 0)


def _checksum(frame: bytes) -> int:
    """CRC-16 of a frame with its own at the end: 0 where it is whole, zeros behind it or not."""
    value = 0
    for byte in frame:
        value = (value << 8 & 0xFFFF) ^ _CRC16[value >> 8 ^ byte]
    return value


def _last_sample(head: bytes, usual: int) -> int | None:
    """How many samples a FLAC has by the end of the frame with this header; None where it is none.

    Args:
        head: its first bytes, 16 at most.
        usual: samples of a frame, where all but the last have as many.
    """
    if len(head) < 6 or head[1] & 0xFE != 0xF8:
        return None
    ones = 8 - (head[4] ^ 0xFF).bit_length()
    if ones in (1, 8):
        return None
    length = max(ones, 1)
    number = head[4] & (0x7F >> ones)
    for byte in head[5 : 4 + length]:
        number = number << 6 | byte & 0x3F
    size, rate, place = head[2] >> 4, head[2] & 0x0F, 4 + length
    extra = {6: 1, 7: 2}.get(size, 0)
    written = int.from_bytes(head[place : place + extra], "big") + 1
    place += extra + {12: 1, 13: 2, 14: 2}.get(rate, 0)
    value = 0
    for byte in head[: place + 1]:
        value = _CRC8[value ^ byte]
    if size == 0 or value or len(head) <= place:
        return None
    samples = written if extra else 192 if size == 1 else 144 << size if size < 6 else 1 << size
    return (number if head[1] & 1 else number * usual) + samples


def _check_mp4(content: bytes) -> None:
    """Walk the boxes at the top: all of them whole, and `ftyp` once."""
    place = 0
    while place + 8 <= len(content):
        size, name, head = int.from_bytes(content[place : place + 4], "big"), content[place + 4 : place + 8], 8
        if name == b"ftyp" and place:
            raise _joined()
        if not all(0x20 <= byte < 0x7F or byte == 0xA9 for byte in name):
            break
        if size == 1:
            size, head = int.from_bytes(content[place + 8 : place + 16], "big"), 16
        elif size == 0:
            return  # up to the end
        if size < head:
            break
        if place + size > len(content):
            if name in (b"mdat", b"moov", b"moof"):
                raise _cut()
            break
        place += size
    _check_rest(content, place, b"ftyp")


_EBML = b"\x1a\x45\xdf\xa3"
_SEGMENT = b"\x18\x53\x80\x67"


_HELD = {
    _SEGMENT,
    b"\x1f\x43\xb6\x75",  # a cluster
}
"""The elements that hold others, and may be written before their size is known, as browsers do."""
_ELEMENTS = frozenset(
    bytes.fromhex(name)
    for names in (
        ("114d9b74", "1549a966", "1654ae6b", "1c53bb6b", "1254c367", "1043a770", "1941a469", "1f43b675"),
        ("e7", "a7", "ab", "a3", "a0", "af", "5854"),
        ("ec", "bf"),
    )
    for name in names
)
"""What may follow in a segment, in a cluster, and anywhere: padding and checksums (RFC 9559)."""


def _check_webm(content: bytes) -> None:
    """Walk the elements: one header and one segment, whole, with nothing behind it."""
    if re.search(re.escape(_EBML) + rb".{1,48}(?:webm|matroska)", content[4:], re.DOTALL):
        raise _joined()
    place = content.find(_SEGMENT, 0, 256)
    if place < 0:
        raise _cut()
    first = True
    while place < len(content):
        name = content[place : place + 9 - content[place].bit_length()]
        if not first and name not in _ELEMENTS:
            break
        first = False
        begins, size = _sized(content, place + len(name))
        if size is None and name in _HELD:
            place = begins
        elif size is None or begins + size > len(content):
            raise _cut()
        else:
            place = begins + size
    _check_rest(content, place, _EBML)


def _sized(content: bytes, place: int) -> tuple[int, int | None]:
    """Where what has its size written here begins, and that size; None where it is not known.

    Raises:
        AudioError: the file ends before that.
    """
    width = 9 - content[place].bit_length() if place < len(content) else 9
    if width > 8 or place + width > len(content):
        raise _cut()
    size = int.from_bytes(content[place : place + width], "big") & (1 << 7 * width) - 1
    return place + width, None if size == (1 << 7 * width) - 1 else size


_CHECKS: dict[Container, Callable[[bytes], None]] = {
    Container.WAV: _check_chunks,
    Container.AIFF: _check_chunks,
    Container.CAF: _check_chunks,
    Container.FLAC: _check_flac,
    Container.OGG: _check_ogg,
    Container.OPUS: _check_ogg,
    Container.MP3: _check_mp3,
    Container.M4A: _check_mp4,
    Container.WEBM: _check_webm,
}
