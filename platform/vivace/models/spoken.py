"""Spoken answers: as files that can be played, and written down by a transcriber where one is named."""

from __future__ import annotations

import io
import wave
from dataclasses import replace
from typing import TYPE_CHECKING

import soundfile

from vivace.models.base import ModelIdentity, ModelReply, NeedsKey, Prompt, SystemUnderTest

if TYPE_CHECKING:  # it stands on the chat client, which needs `as_wav`
    from vivace.models.transcription import Transcriber

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


class Transcribed:
    """A system whose spoken answers are judged by what a transcriber hears, not by the API's own transcript."""

    def __init__(self, system: SystemUnderTest, transcriber: Transcriber) -> None:
        self._system = system
        self._transcriber = transcriber

    @property
    def identity(self) -> ModelIdentity:
        """The system's, with the transcriber."""
        identity = self._system.identity
        return replace(identity, parameters={**identity.parameters, "transcriber": self._transcriber.identity})

    def check_key(self) -> None:
        """See that the keys of both are there."""
        for each in (self._system, self._transcriber):
            if isinstance(each, NeedsKey):
                each.check_key()

    async def preflight(self) -> None:
        """See that both can answer."""
        await self._system.preflight()
        await self._transcriber.preflight()

    async def reply(self, prompt: Prompt) -> ModelReply:
        """The system's reply, its text the transcriber's; the API's own is kept nowhere."""
        reply = await self._system.reply(prompt)
        if reply.audio is None:
            return reply
        heard = await self._transcriber.transcribe(reply.audio)
        return replace(
            reply, text=heard.text, raw_text=None, unscored=heard.unscored, detail=heard.detail or reply.detail
        )

    async def close(self) -> None:
        """Close the system and the transcriber."""
        try:
            await self._system.close()
        finally:
            await self._transcriber.close()
