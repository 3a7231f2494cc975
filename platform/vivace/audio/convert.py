"""From the bytes of a recording to the bytes a model is sent, with nothing lost on the way but what was asked."""

from __future__ import annotations

import io
import struct
import wave
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from vivace.audio.containers import AudioError as AudioError
from vivace.audio.containers import Container, check_whole, container, end_of_mp3, with_known_size

AudioForm = Literal["16k", "original"]

MODEL_RATE = 16_000
"""Hz; what every provider takes (facts on providers: 16 kHz mono WAV is safe everywhere)."""
LOWEST_RATE = 1_000
"""Hz; a lower rate comes from a broken header, and resampling it would fill the memory."""
HIGHEST_RATE = 768_000
"""Hz; no recorder has a higher one."""
MOST_SAMPLES = 2**27
"""Of all channels together, decoded: a gibibyte, or three quarters of an hour at 48 kHz. A megabyte of silence, or a
header, may claim more than any memory holds."""
_AV_FORMATS = {Container.M4A: "mp4", Container.WEBM: "matroska", Container.MP3: "mp3"}
"""What PyAV decodes, by the name of its reader: none is guessed, for some open other files. libsndfile lacks two, and
stops in an MP3 that does not tell its length where it guesses the end to be."""


@dataclass(frozen=True)
class DecodedAudio:
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


def decode(content: bytes, most_samples: int | None = None) -> DecodedAudio:
    """Decode a recording of one of the kinds of `Container`, all of it.

    Args:
        content: the file.
        most_samples: that are taken, of all channels together, `MOST_SAMPLES` otherwise; each takes eight bytes.

    Raises:
        AudioError: the bytes are not audio, are cut off or more than one recording, or hold no sound.
    """
    if not content:
        raise AudioError("the recording is empty")
    most_samples = MOST_SAMPLES if most_samples is None else most_samples
    kind = container(content)
    check_whole(content, kind)
    if kind in _AV_FORMATS:
        samples, rate = _decode_with_av(content, kind, most_samples)
    else:
        samples, rate = _decode_with_libsndfile(content, most_samples)
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise AudioError(f"the recording's rate of {rate} Hz is none of sound")
    if len(samples) == 0:
        raise AudioError("the recording holds no sound")
    if not np.isfinite(samples).all():
        raise AudioError("the recording holds samples that are not numbers")
    return DecodedAudio(samples, rate)


def _too_long(most_samples: int) -> AudioError:
    minutes = most_samples / 48_000 / 60
    return AudioError(
        f"the recording holds, or claims to hold, more sound than is taken ({minutes:.0f} minutes of one channel at "
        "48 kHz); cut it into turns"
    )


def _decode_with_libsndfile(content: bytes, most_samples: int) -> tuple[npt.NDArray[np.float64], int]:
    try:
        with soundfile.SoundFile(_Bytes(with_known_size(content))) as file:
            known = file.frames < 2**62  # of a stream that does not say how long it is
            if known and file.frames * file.channels > most_samples:
                raise _too_long(most_samples)
            most = most_samples // file.channels
            samples = file.read(file.frames if known else most + 1, dtype="float64", always_2d=True)
            if len(samples) > most:
                raise _too_long(most_samples)
            if known and len(samples) < file.frames:
                raise AudioError("the recording is damaged or cut off: it decodes to less sound than its header says")
            return samples, int(file.samplerate)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise AudioError(f"the recording cannot be decoded ({_reason(error)})") from error


def _decode_with_av(content: bytes, kind: Container, most_samples: int) -> tuple[npt.NDArray[np.float64], int]:
    import av

    content = content[: end_of_mp3(content)] if kind is Container.MP3 else content
    try:
        with av.open(io.BytesIO(content), "r", format=_AV_FORMATS[kind]) as file:
            if len(file.streams.audio) != 1:
                raise AudioError(f"the recording has {len(file.streams.audio)} tracks of sound; export one alone")
            stream = file.streams.audio[0]
            parts, form, count = [], None, 0
            for frame in file.decode(stream):
                its = (frame.format.is_planar, frame.layout.nb_channels, frame.sample_rate, frame.format.name)
                form = form or its
                if its != form:
                    raise AudioError("the recording changes its rate or its channels on the way")
                count += frame.samples * its[1]
                if count > most_samples:
                    raise _too_long(most_samples)
                parts.append(frame.to_ndarray())
            samples = _as_floats(parts, *form[:2]) if form else np.empty((0, 1))
            told = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
            told = told or (file.duration or 0) / av.time_base
            if kind is not Container.MP3 and len(samples) / stream.rate < 0.99 * told - 0.1:  # an MP3's is a guess
                raise AudioError("the recording is cut off: it holds less sound than its header says")
            return samples, int(stream.rate)
    except (av.error.FFmpegError, ValueError) as error:
        if isinstance(error, AudioError):
            raise
        raise AudioError(f"the recording cannot be decoded ({getattr(error, 'strerror', error)})") from error


def _as_floats(parts: list[npt.NDArray[Any]], is_planar: bool, channels: int) -> npt.NDArray[np.float64]:
    """Samples as codecs give them, frame after frame, from −1 to 1: shape (frames, channels)."""
    whole = np.concatenate(parts, axis=1)
    samples = whole.T if is_planar else whole.reshape(-1, channels)
    if samples.dtype.kind == "f":
        return np.asarray(samples, dtype=np.float64)
    full = 2.0 ** (8 * samples.dtype.itemsize - 1)
    middle = full if samples.dtype.kind == "u" else 0.0
    return np.asarray((samples - middle) / full, dtype=np.float64)


def _reason(error: Exception) -> str:
    """What libsndfile says, less the address of the buffer it says it of."""
    return str(getattr(error, "error_string", error)).strip().rstrip(".")


def to_mono(recording: DecodedAudio, rate: int = MODEL_RATE) -> npt.NDArray[np.float64]:
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


def as_wav_file(content: bytes) -> bytes:
    """A recording of any kind as a WAV file, at its own rate and channels; what is one stays as it is.

    Raises:
        AudioError: as `decode` says.
    """
    recording = decode(content)
    if container(content) is Container.WAV:
        return with_known_size(content)
    return encode_wav(recording.samples, recording.rate)


def seconds_of(content: bytes) -> float:
    """A recording's length in seconds, found out by decoding it: a damaged one is found out, too.

    Raises:
        AudioError: as `decode` says.
    """
    if _is_as_encoded(content):
        return (len(content) - _WAV_HEADER) / (2 * MODEL_RATE)
    return decode(content).seconds


_WAV_HEADER = 44
"""Bytes before the samples in a WAV file of `encode_wav`."""


def _is_as_encoded(content: bytes) -> bool:
    """Whether these are the very bytes that `encode_wav` makes of one channel at 16 kHz, with nothing to find out."""
    sound = len(content) - _WAV_HEADER
    return (
        sound > 0
        and sound % 2 == 0
        and sound < 2 * MOST_SAMPLES
        and content[:_WAV_HEADER]
        == struct.pack(
            "<4sI4s4sIHHIIHH4sI", b"RIFF", sound + 36, b"WAVE", b"fmt ", 16, 1, 1, MODEL_RATE, 2 * MODEL_RATE, 2, 16,
            b"data", sound,
        )
    )  # fmt: skip


def for_model(content: bytes, form: AudioForm) -> EncodedAudio:
    """A recording in the form a model is sent.

    `16k` is 16 kHz mono WAV. `original` is the recording's own bytes where they are WAV or MP3, the two
    containers that chat APIs take, and otherwise a WAV at its own rate and channels.

    Raises:
        AudioError: the recording cannot be decoded.
    """
    if form == "16k" and _is_as_encoded(content):
        return EncodedAudio(content, "wav")
    if form == "16k":
        return EncodedAudio(encode_wav(to_mono(decode(content)), MODEL_RATE), "wav")
    if content[:4] == b"RIFF" and container(content) is Container.WAV:
        return EncodedAudio(with_known_size(content), "wav")
    if container(content) is Container.MP3:
        return EncodedAudio(content, "mp3")
    recording = decode(content)
    return EncodedAudio(encode_wav(recording.samples, recording.rate), "wav")
