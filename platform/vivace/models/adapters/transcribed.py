"""A system whose spoken answers are written down by a transcriber, where one is named."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace

from vivace.models.adapters.transcription import Transcriber
from vivace.models.base import ModelIdentity, ModelReply, NeedsKey, Prompt, RecordedSystem, SystemUnderTest


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


class TranscribedRecordings(Transcribed):
    """Recorded replies that were spoken, written down by a transcriber."""

    def __init__(self, system: SystemUnderTest, recorded: RecordedSystem, transcriber: Transcriber) -> None:
        super().__init__(system, transcriber)
        self._recorded = recorded

    @property
    def conversations(self) -> Set[str]:
        """The ids of the conversations that were replied to."""
        return self._recorded.conversations


def transcribed(system: SystemUnderTest, transcriber: Transcriber) -> Transcribed:
    """A system with whoever writes its spoken answers down."""
    if isinstance(system, RecordedSystem):
        return TranscribedRecordings(system, system, transcriber)
    return Transcribed(system, transcriber)
