"""`cascade:TARGET`: an ear writes down what is said, a model of text answers it, and a voice may speak the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar

from vivace.audio.convert import AudioError, decode, encode_wav, to_mono
from vivace.audio.voice import LONGEST_SPOKEN, SpeechVoice, VoiceError, cost_of_speaking, open_voice
from vivace.errors import IncompleteError, UsageError
from vivace.models.adapters.base import Asked, Capabilities
from vivace.models.adapters.transcription import Transcriber, open_transcriber
from vivace.models.base import HeardTurn, ModelIdentity, ModelReply, NeedsKey, Prompt, SpokenTurn, SystemUnderTest
from vivace.models.client.calls import CallRecord, record_call, recorded_calls
from vivace_rubrics.criteria import Unscored
from vivace_rubrics.texts import is_blank

CHARACTERS_A_SECOND = 60
"""More than anybody says; the fastest speech has some forty."""
SPARE_CHARACTERS = 200
DEFAULT_VOICE = "espeak-ng:en-us+m3@165"
SPEAKING = "speak"
"""What the calls to a voice are recorded as."""
MOST_SILENT = 3
"""Replies in a row to which a voice did not answer: it is gone, and further answers would be paid for nothing."""


class Cascade:
    """A system in stages: recordings become text, the text a conversation, its answer the reply.

    The user turns are heard one after the other, each by itself, so that what an ear writes of one depends on no
    other. Times are those of the stages added up, without what a stage waits for others' conversations.

    Args:
        ear: hears the recordings.
        model: answers what was heard.
        voice: speaks the answer; None leaves it in writing.
        hears: whether there will be recordings; transcripts go to the model as they are.
    """

    capabilities: ClassVar = Capabilities(speaks="asked", asks_another=True)

    @classmethod
    def open(cls, asked: Asked) -> Cascade:
        """The cascade of an ear and the model behind the colon.

        Raises:
            UsageError: it lacks an ear, or ear or voice cannot be had.
            UnreachableError: the hub has to be asked for the ear and does not answer.
        """
        assert asked.another is not None
        if asked.ear is None:
            raise UsageError(
                f"cascade:{asked.name} has no ear yet: name a transcriber that hears for it, for instance "
                "--ear whisper:base."
            )
        if asked.spoken.transcriber is not None:
            raise UsageError(
                "--transcriber writes down what a model speaks, and a cascade's words are known before they are "
                "spoken: leave it out, and name who hears with --ear."
            )
        ear = open_transcriber(asked.ear, asked.options, asked.home)
        voice = None
        if asked.spoken.output == "audio":
            named, options = asked.spoken.voice or DEFAULT_VOICE, asked.options
            voice = open_voice(named, timeout_s=options.timeout_s, retries=options.retries)
        return cls(ear, asked.another, voice, hears=asked.hears)

    def __init__(
        self, ear: Transcriber, model: SystemUnderTest, voice: SpeechVoice | None = None, *, hears: bool = True
    ) -> None:
        self._ear = ear
        self._model = model
        self._voice = voice
        self._hears = hears
        self._silent = 0

    @property
    def identity(self) -> ModelIdentity:
        """The model's, with the ear and the voice, each by all that decides what it does."""
        model = self._model.identity
        stages: dict[str, Any] = {"ear": self._ear.identity}
        if self._voice is not None:
            stages |= {"output": "audio", "voice": self._voice.identity}
        return replace(
            model,
            target=f"cascade:{model.target}",
            adapter="cascade",
            name=f"{self._ear.name} → {model.name}",
            parameters={**model.parameters, **stages},
        )

    def check_key(self) -> None:
        """See that the keys of all stages are there."""
        for each in (self._model, self._ear):
            if isinstance(each, NeedsKey):
                each.check_key()

    async def preflight(self) -> None:
        """See that all stages can answer."""
        await self._model.preflight()
        if self._hears:
            await self._ear.preflight()

    async def hear(self, turn: SpokenTurn, number: int) -> HeardTurn:
        """What the ear makes of a recording, bounded by what anybody could say in its time."""
        if turn.audio is None:
            return HeardTurn(number, None, Unscored.NO_AUDIO, "there is no recording of it")
        with _recorded(audio_seconds=turn.seconds) as calls:
            heard = await self._ear.transcribe(turn.audio.content)
        text, unscored, detail = heard.text, heard.unscored, heard.detail
        if text is not None and is_blank(text):
            text, unscored, detail = None, Unscored.EMPTY, "nothing was heard in it"
        most = SPARE_CHARACTERS + CHARACTERS_A_SECOND * (turn.seconds or _seconds(turn.audio.content))
        if text is not None and len(text) > most:
            detail = f"{len(text)} characters were heard, more than anybody says in that time: {text[:80]}…"
            text, unscored = None, Unscored.TOO_LONG
        return HeardTurn(number, text, unscored, detail, sum(call.seconds for call in calls), _cost(calls))

    async def answer(self, prompt: Prompt) -> ModelReply:
        """What the model answers to a conversation in writing."""
        with _recorded(audio_seconds=0.0):
            return await self._model.reply(prompt)

    async def reply(self, prompt: Prompt) -> ModelReply:
        """The model's answer to what was heard; where a turn was not heard, there is none, and nothing to answer."""
        heard: list[HeardTurn] = []
        written: list[tuple[SpokenTurn, str | None]] = []
        for number, (turn, assistant) in enumerate(prompt.turns, start=1):
            if turn.audio is None:
                written.append((turn, assistant))
                continue
            one = await self.hear(turn, number)
            heard.append(one)
            if one.text is None:
                why = one.detail or (one.unscored.value if one.unscored else "no reason given")
                detail = f"user turn {number} was not heard: {why}"
                return ModelReply(None, Unscored.NOT_HEARD, detail, heard=tuple(heard))
            written.append((SpokenTurn(None, one.text), assistant))
        reply = await self.answer(replace(prompt, turns=written))
        before = sum(one.seconds or 0.0 for one in heard)
        ttft, total = (None if time is None else before + time for time in (reply.ttft_s, reply.total_s))
        return await self._spoken(replace(reply, heard=tuple(heard), ttft_s=ttft, total_s=total))

    async def _spoken(self, reply: ModelReply) -> ModelReply:
        """The reply with its sound, where the cascade has a voice; one that was not spoken keeps what was written.

        Raises:
            IncompleteError: the voice has answered none of the last replies.
        """
        if self._voice is None or reply.text is None:
            return reply
        if len(reply.text) > LONGEST_SPOKEN:
            return _unspoken(reply, Unscored.TOO_LONG, f"{len(reply.text):,} characters are too many to be spoken")
        started = asyncio.get_running_loop().time()
        audio, spoken_s, failed = b"", 0.0, None
        try:
            audio, spoken_s = await asyncio.to_thread(_speak, self._voice, reply.text)
        except (VoiceError, AudioError) as error:
            failed, why = Unscored.NO_AUDIO, str(error)
        except IncompleteError as error:
            failed, why = Unscored.SERVER_ERROR, str(error).partition(";")[0]
            if self._silent + 1 >= MOST_SILENT:
                raise
        seconds = asyncio.get_running_loop().time() - started
        self._silent = self._silent + 1 if failed is Unscored.SERVER_ERROR else 0
        cost = None if failed else cost_of_speaking(self._voice.name, len(reply.text), spoken_s)
        record_call(CallRecord(seconds, cost_usd=cost, error=failed, stage=SPEAKING, audio_seconds=0.0))
        if failed:
            return _unspoken(reply, failed, f"it was not spoken: {why}")
        total = None if reply.total_s is None else reply.total_s + seconds
        return replace(reply, audio=audio, first_audio_s=total, total_s=total)

    async def close(self) -> None:
        """Close all stages."""
        try:
            await self._model.close()
        finally:
            await self._ear.close()


@contextmanager
def _recorded(audio_seconds: float | None) -> Iterator[Sequence[CallRecord]]:
    """Collect the calls of a stage, and pass them on with the sound that each of them sent."""
    made: Sequence[CallRecord] = ()
    try:
        with recorded_calls() as made:
            yield made
    finally:
        for call in made:
            record_call(replace(call, audio_seconds=audio_seconds))


def _cost(calls: Sequence[CallRecord]) -> float | None:
    """US dollars of all calls; None where the cost of one that was answered is not known."""
    costs = [call.cost_usd for call in calls if call.error is None and not call.cached]
    return None if None in costs else sum(cost for cost in costs if cost is not None)


def _seconds(content: bytes) -> float:
    """The length of a recording; 0 of what cannot be decoded."""
    try:
        return decode(content).seconds
    except AudioError:
        return 0.0


def _unspoken(reply: ModelReply, why: Unscored, detail: str) -> ModelReply:
    """A reply in writing alone, which is none to who was to speak; what was written is kept."""
    return replace(reply, text=None, raw_text=reply.raw_text or reply.text, unscored=why, detail=detail)


def _speak(voice: SpeechVoice, text: str) -> tuple[bytes, float]:
    """A text as a WAV file, mono, at the voice's own rate, and its seconds."""
    recording = decode(voice.speak(text))
    return encode_wav(to_mono(recording, recording.rate), recording.rate), recording.seconds
