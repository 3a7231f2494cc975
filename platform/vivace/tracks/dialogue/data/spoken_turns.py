"""Speaks a set's user turns anew from their transcripts, so that a set without its audio can be heard by a model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vivace.audio.containers import container
from vivace.audio.voice import SpeechVoice, VoiceError
from vivace.errors import UsageError
from vivace.tracks.dialogue.data.conversations import TEXT_COLUMNS, VOICES_KEY, Conversation, ConversationSet
from vivace.tracks.dialogue.data.writer import public_schema, unfinished_file, write_rows

ROWS_AT_A_TIME = 32
"""A row group: small enough that a set of any size is written with little memory."""


@dataclass(frozen=True)
class Utterance:
    """One user turn to be spoken, and the file that keeps its recording."""

    conversation: str
    number: int
    text: str
    voice: SpeechVoice
    file: Path


@dataclass(frozen=True)
class Voiced:
    """What was written."""

    conversations: int
    utterances: int
    spoken: int
    """The others had been spoken before."""
    size: int
    """The file's, in bytes."""


def voice_set(
    source: ConversationSet,
    chosen: Sequence[Conversation],
    voices: Sequence[SpeechVoice],
    *,
    cache: Path,
    out: Path,
    concurrency: int,
    progress: Callable[[int, int], None],
) -> Voiced:
    """Speak the chosen conversations of a set, and write them to `out` in the public dataset's form.

    Args:
        source: the set.
        chosen: its conversations to speak.
        voices: at least one. Each conversation has one speaker, chosen by the conversation's id: whichever
            conversations are asked for, the same voices give the same speaker.
        cache: the folder that keeps recordings by the hash of voice and text, so that a killed call goes on.
        out: a parquet file, which appears when it is complete.
        concurrency: utterances at a time.
        progress: told how many utterances are spoken, and of how many.

    Raises:
        UsageError: a turn cannot be spoken, or a file cannot be written.
        IncompleteError: a voice does not answer any more; the same call goes on.
    """
    speakers = {conversation.id: _speaker(conversation.id, voices) for conversation in chosen}
    utterances = {
        conversation.id: list(_utterances(conversation, speakers[conversation.id], cache)) for conversation in chosen
    }
    every = [one for spoken in utterances.values() for one in spoken]
    missing = list({one.file: one for one in every if not one.file.exists()}.values())
    description = {
        "source": {"name": source.name, "revision": source.revision},
        "voices": {voice.name: voice.identity for voice in voices},
        "speakers": {key: voice.name for key, voice in speakers.items()},
    }
    unfinished = unfinished_file(out)
    try:
        unfinished.touch()  # whether it can be written is seen before minutes of work, not after
        _speak_all(missing, concurrency, progress)
        schema = public_schema(
            None,
            checks="rubric_checks" in source.table.columns,
            metadata={VOICES_KEY: json.dumps(description, ensure_ascii=False).encode()},
        )
        write_rows(unfinished, _rows(source, utterances), schema, ROWS_AT_A_TIME)
        size = unfinished.stat().st_size
        unfinished.replace(out)
    except OSError as error:
        place = out if error.filename in (None, str(unfinished)) else error.filename
        raise UsageError(f"'{place}' cannot be written ({error.strerror or error}).") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return Voiced(len(chosen), len(every), len(missing), size)


def _speaker(conversation: str, voices: Sequence[SpeechVoice]) -> SpeechVoice:
    return voices[int(hashlib.sha256(conversation.encode()).hexdigest(), 16) % len(voices)]


def _utterances(conversation: Conversation, voice: SpeechVoice, cache: Path) -> Iterator[Utterance]:
    for number, exchange in enumerate(conversation.exchanges, start=1):
        if exchange.user is None:
            raise UsageError(
                f"Conversation '{conversation.id}' has no transcript of user turn {number}, so that it cannot be "
                "spoken; transcribe it, or leave the conversation out with --items."
            )
        key = json.dumps([voice.identity, exchange.user], sort_keys=True)
        name = hashlib.sha256(key.encode()).hexdigest()
        yield Utterance(conversation.id, number, exchange.user, voice, cache / name[:2] / name)


def _speak_all(missing: Sequence[Utterance], concurrency: int, progress: Callable[[int, int], None]) -> None:
    """Speak and keep them. The first goes alone: a wrong key or name is found out for the price of one."""
    if not missing:
        return
    _speak(missing[0])
    pool = ThreadPoolExecutor(concurrency)
    try:
        futures = [pool.submit(_speak, one) for one in missing[1:]]
        for spoken, future in enumerate(as_completed(futures), start=2):
            future.result()
            progress(spoken, len(missing))
    finally:
        pool.shutdown(cancel_futures=True)


def _speak(one: Utterance) -> None:
    try:
        content = one.voice.speak(one.text)
    except VoiceError as error:
        raise UsageError(
            f"User turn {one.number} of conversation '{one.conversation}' was not spoken: {error}; mend the "
            "transcript, or leave the conversation out with --items."
        ) from error
    one.file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = unfinished_file(one.file)
    unfinished.write_bytes(content)
    unfinished.replace(one.file)


def _rows(source: ConversationSet, utterances: dict[str, list[Utterance]]) -> Iterator[dict[str, Any]]:
    """The rows with their texts as they stand in the source, and their recordings."""
    columns = [column for column in TEXT_COLUMNS if column in source.table.columns]
    for row in source.table.rows(columns):
        if row["id"] not in utterances:
            continue
        for column in ("rubric", "rubric_checks"):
            if isinstance(row.get(column), list):  # as JSONL may write it
                row[column] = json.dumps(row[column], ensure_ascii=False)
        for one in utterances[row["id"]]:
            content = one.file.read_bytes()
            path = f"{one.conversation}_user_turn_{one.number}.{container(content)}"
            row[f"user_turn_{one.number}_audio"] = {"bytes": content, "path": path}
        yield row
