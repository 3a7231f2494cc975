"""From the bytes of a recording to the bytes a model is sent, with nothing lost on the way but what was asked."""

from __future__ import annotations

import io
import wave
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

AudioForm = Literal["16k", "original"]

MODEL_RATE = 16_000
"""Hz; what every provider takes (facts on providers: 16 kHz mono WAV is safe everywhere)."""
LOWEST_RATE = 1_000
"""Hz; a lower rate comes from a broken header, and resampling it would fill the memory."""


class AudioError(ValueError):
    """A recording cannot be decoded; the message says why."""


@dataclass(frozen=True)
class Recording:
    """Decoded audio.

    Attributes:
        samples: float64, shape (frames, channels), full scale ±1.
        rate: frames per second.
    """

    samples: npt.NDArray[np.float64]
    rate: int

    @property
    def seconds(self) -> float:
        """Its length."""
        return len(self.samples) / self.rate


@dataclass(frozen=True)
class EncodedAudio:
    """Audio as a request carries it."""

    content: bytes
    container: Literal["wav", "mp3"]


class _Bytes(io.BytesIO):
    """Bytes as a file for libsndfile, which is led before their beginning by broken headers.

    An exception inside its callbacks would end as a traceback on the user's screen, and nowhere else.
    """

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        try:
            return super().seek(offset, whence)
        except ValueError:
            return self.tell()


def decode(content: bytes) -> Recording:
    """Decode a WAV, FLAC, Ogg, Opus, MP3 or AIFF file; formats libsndfile lacks go through ffmpeg.

    Raises:
        AudioError: the bytes are not audio, are cut off, or hold no sound.
    """
    if not content:
        raise AudioError("the recording is empty")
    if _is_cut_wav(content):
        raise AudioError("the recording is cut off: it holds less sound than its header says")
    try:
        samples, rate = soundfile.read(_Bytes(content), dtype="float64", always_2d=True)
    except MemoryError as error:
        raise AudioError("the recording's header claims more sound than fits into memory") from error
    except (soundfile.LibsndfileError, RuntimeError) as error:
        recording = _decode_with_ffmpeg(content)
        if recording is None:
            raise AudioError(f"the recording cannot be decoded ({_reason(error)})") from error
        return recording
    if rate < LOWEST_RATE:
        raise AudioError(f"the recording's rate of {rate} Hz is too low for sound")
    if len(samples) == 0:
        raise AudioError("the recording holds no sound")
    if not np.isfinite(samples).all():
        raise AudioError("the recording holds samples that are not numbers")
    return Recording(samples, int(rate))


def _reason(error: Exception) -> str:
    """What libsndfile says, less the address of the buffer it says it of."""
    return str(getattr(error, "error_string", error)).strip().rstrip(".")


def _is_cut_wav(content: bytes) -> bool:
    """Whether a WAV holds clearly less sound than its header says: libsndfile would quietly take what is left.

    A size of 1 GiB or more is what programs write that do not know it yet; it says nothing.
    """
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        return False
    place = 12
    while place + 8 <= len(content):
        name, size = content[place : place + 4], int.from_bytes(content[place + 4 : place + 8], "little")
        if name == b"data":
            return size < 2**30 and len(content) - place - 8 < 0.99 * size
        place += 8 + size + size % 2
    return False


def _decode_with_ffmpeg(content: bytes) -> Recording | None:
    """Containers libsndfile does not know (M4A, WebM) that carry a known signature; None for anything else."""
    if content[4:8] != b"ftyp" and not content.startswith(b"\x1a\x45\xdf\xa3"):
        return None
    import imageio_ffmpeg
    from pydub import AudioSegment
    from pydub.exceptions import CouldntDecodeError

    AudioSegment.converter = imageio_ffmpeg.get_ffmpeg_exe()
    try:
        segment = AudioSegment.from_file(io.BytesIO(content))
    except (CouldntDecodeError, OSError, IndexError, KeyError):
        return None
    samples = np.array(segment.get_array_of_samples(), dtype=np.float64)
    scale = float(1 << (8 * segment.sample_width - 1))
    return Recording(samples.reshape(-1, segment.channels) / scale, segment.frame_rate)


def to_mono(recording: Recording, rate: int = MODEL_RATE) -> npt.NDArray[np.float64]:
    """Average the channels and resample (soxr, HQ): float64, shape (frames,)."""
    mono: npt.NDArray[np.float64] = recording.samples.mean(axis=1)
    if recording.rate == rate:
        return mono
    return np.asarray(soxr.resample(mono, recording.rate, rate, quality="HQ"), dtype=np.float64)


def encode_wav(samples: npt.NDArray[np.float64], rate: int) -> bytes:
    """A 16-bit PCM WAV file of float samples, shape (frames,) or (frames, channels); loud peaks are clipped.

    Scaled by 32,768, so that 16-bit audio comes out as the very samples that went in.
    """
    pcm = np.clip(np.rint(samples * 32768.0), -32768, 32767).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(pcm.tobytes())
    return buffer.getvalue()


def for_model(content: bytes, form: AudioForm) -> EncodedAudio:
    """A recording in the form a model is sent.

    `16k` is 16 kHz mono WAV. `original` is the recording's own bytes where they are WAV or MP3, the two
    containers that chat APIs take, and otherwise a WAV at its own rate and channels.

    Raises:
        AudioError: the recording cannot be decoded.
    """
    if form == "16k":
        return EncodedAudio(encode_wav(to_mono(decode(content)), MODEL_RATE), "wav")
    if content[:4] == b"RIFF" and content[8:12] == b"WAVE":
        return EncodedAudio(content, "wav")
    if content[:3] == b"ID3" or (len(content) > 1 and content[0] == 0xFF and content[1] & 0xE6 == 0xE2):
        return EncodedAudio(content, "mp3")
    recording = decode(content)
    return EncodedAudio(encode_wav(recording.samples, recording.rate), "wav")
