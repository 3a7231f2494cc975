"""How well a transcriber hears: its word error rate on a set's user turns, on one recording, or on spoken digits."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vivace.audio.convert import AudioError, decode, for_model
from vivace.audio.digits import SpokenDigits, read_digits
from vivace.errors import UsageError
from vivace.files.recordings import RECORDINGS
from vivace.files.text import read_text
from vivace.models.adapters.transcription import Transcriber
from vivace.models.client.calls import CallRecord, recorded_calls
from vivace.models.hearing_check import DIGITS, digits_in
from vivace.statistics.word_errors import WordErrors, word_errors
from vivace.tracks.dialogue.data.conversations import Conversation, ConversationSet

NUMBERS = 6
"""Numbers that each speaker of a folder of digits says, the same for all."""
ALL = "all"


@dataclass(frozen=True)
class Said:
    """A recording, and what is said in it.

    Attributes:
        name: of the recording.
        slice: what it is counted with: an axis, a speaker, or the file.
        recording: its bytes.
        text: what is said.
        digits: whether it is a number, of which only the digits count.
    """

    name: str
    slice: str
    recording: bytes
    text: str
    digits: bool = False


@dataclass(frozen=True)
class Written:
    """What a transcriber made of a recording; `heard` is None where it was nothing, and `detail` says why."""

    recording: str
    slice: str
    said: str
    heard: str | None
    detail: str | None
    errors: int | None
    words: int
    audio_s: float
    took_s: float


@dataclass(frozen=True)
class Rate:
    """The word error rate over some recordings.

    Attributes:
        slice: which.
        recordings: how many.
        exact: those without an error.
        not_heard: those of which nothing was made; they count as all words left out.
        errors: words replaced, left out or put in.
        words: that were said.
        word_error_rate: errors over words.
        audio_s: of the recordings, in seconds.
        took_s: that the transcriber worked.
    """

    slice: str
    recordings: int
    exact: int
    not_heard: int
    errors: int
    words: int
    word_error_rate: float | None
    audio_s: float
    took_s: float


def recordings_of(data: str, said: str | None) -> Sequence[Said] | None:
    """The recordings of a file, or of a folder of spoken digits; None where the data are a set of conversations.

    Args:
        data: as a person wrote it.
        said: what is said in a file; None where it stands in a text file beside it.

    Raises:
        UsageError: what is said in a file is not known, or a folder's digits cannot be read.
    """
    path = Path(data)
    if path.is_file() and path.suffix.lower() in RECORDINGS:
        beside = path.with_suffix(".txt")
        if said is None and not beside.is_file():
            raise UsageError(
                f"What is said in '{path}' is not known: give it with --said TEXT, or in '{beside}' beside it."
            )
        text = read_text(beside, "transcript") if said is None else said
        return [Said(path.name, path.name, path.read_bytes(), text)]
    if said is not None:
        raise UsageError("--said goes with one recording; sets of conversations bring their transcripts.")
    if path.is_dir() and any(path.glob("[0-9]_*_*.*")):
        return list(_numbers(read_digits(path)))
    return None


def turns_of(conversations: ConversationSet, chosen: Sequence[Conversation]) -> Iterator[Said]:
    """The user turns of a set that have a transcript.

    Raises:
        UsageError: a recording is missing.
    """
    for conversation, recordings in conversations.recordings(chosen):
        for number, (exchange, recording) in enumerate(zip(conversation.exchanges, recordings, strict=True), start=1):
            if exchange.user:
                yield Said(f"{conversation.id} turn {number}", conversation.axis, recording, exchange.user)


def _numbers(digits: SpokenDigits) -> Iterator[Said]:
    chance = random.Random(0)
    numbers = [f"{chance.randrange(10**DIGITS):0{DIGITS}d}" for _ in range(NUMBERS)]
    for speaker, recordings in sorted(digits.speakers.items()):
        alone = SpokenDigits({speaker: recordings})
        for number in numbers:
            yield Said(f"{speaker} {number}", speaker, alone.say(number), number, digits=True)


async def transcribed(
    transcriber: Transcriber, recordings: Iterable[Said], on_recording: Callable[[int], None]
) -> list[Written]:
    """What a transcriber makes of recordings, one after the other.

    Args:
        transcriber: which is asked; it is closed at the end.
        recordings: with what is said in them.
        on_recording: told how many are done.

    Raises:
        UsageError, UnreachableError: as the transcriber's `preflight` and `transcribe`.
    """
    written: list[Written] = []
    try:
        await transcriber.preflight()
        for one in recordings:
            written.append(await _written(transcriber, one))
            on_recording(len(written))
    finally:
        await transcriber.close()
    return written


async def _written(transcriber: Transcriber, said: Said) -> Written:
    try:
        audio = await asyncio.to_thread(for_model, said.recording, "16k")
        seconds = decode(said.recording).seconds
    except AudioError as error:
        raise UsageError(f"The recording '{said.name}' is broken: {error}.") from error
    calls: Sequence[CallRecord]
    with recorded_calls() as calls:
        heard = await transcriber.transcribe(audio.content)
    counted = None if heard.text is None else _errors(said, heard.text)
    words = _errors(said, "").words
    return Written(
        recording=said.name,
        slice=said.slice,
        said=said.text,
        heard=heard.text,
        detail=heard.detail,
        errors=None if counted is None else counted.errors,
        words=words,
        audio_s=seconds,
        took_s=sum(call.seconds for call in calls),
    )


def _errors(said: Said, heard: str) -> WordErrors:
    if said.digits:  # each is a word, however the number is written
        return word_errors(" ".join(said.text), " ".join(digits_in(heard)), language="")
    return word_errors(said.text, heard)


def rates(written: Sequence[Written]) -> list[Rate]:
    """The word error rate of each slice, and of all recordings together."""
    slices = list(dict.fromkeys(one.slice for one in written))
    return [
        *(_rate(name, [one for one in written if one.slice == name]) for name in slices),
        *([_rate(ALL, written)] if len(slices) > 1 else []),
    ]


def _rate(name: str, written: Sequence[Written]) -> Rate:
    errors = sum(one.words if one.errors is None else one.errors for one in written)
    words = sum(one.words for one in written)
    return Rate(
        slice=name,
        recordings=len(written),
        exact=sum(one.errors == 0 for one in written),
        not_heard=sum(one.heard is None for one in written),
        errors=errors,
        words=words,
        word_error_rate=errors / words if words else None,
        audio_s=sum(one.audio_s for one in written),
        took_s=sum(one.took_s for one in written),
    )
