"""Spoken answers as files that can be played, and whether there is a sound in them."""

from __future__ import annotations

import io
import wave

import soundfile

RATE = 24_000
"""Hz of the 16-bit mono PCM in which OpenAI's models speak."""
SHORTEST_S = 0.05
"""Less than the shortest syllable: what is shorter is no speech."""


def as_wav(sound: bytes) -> bytes:
    """A spoken answer as a WAV file: PCM gets a header, what is a WAV file stays."""
    if sound[:4] == b"RIFF" and sound[8:12] == b"WAVE":
        return sound
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(sound[: len(sound) // 2 * 2])
    return buffer.getvalue()


def is_sound(wav: bytes) -> bool:
    """Whether a WAV file can be played and is long enough to hold a word."""
    try:
        info = soundfile.info(io.BytesIO(wav))
    except soundfile.LibsndfileError:
        return False
    return bool(info.frames >= SHORTEST_S * info.samplerate)
