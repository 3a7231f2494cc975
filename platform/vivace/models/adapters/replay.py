"""`replay:FILE`: a system known by its recorded replies, the way a team submits outputs instead of a model."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from vivace.audio.convert import AudioError, as_wav_file
from vivace.errors import UsageError
from vivace.files.content_hash import file_sha256
from vivace.files.recordings import RECORDINGS, RecordingError, recording_file
from vivace.files.text import json_rows
from vivace.models.adapters.base import Asked, Capabilities
from vivace.models.base import ModelIdentity, ModelReply, Prompt
from vivace_rubrics.criteria import Unscored
from vivace_rubrics.texts import is_blank


def read_replies(path: Path, what: str = "file of replies") -> dict[str, dict[str, Any]]:
    """Rows of `id` and `response`, by id; other fields are kept.

    Raises:
        UsageError: the file cannot be read, or an id is missing or stands twice, or a response is no text.
    """
    replies: dict[str, dict[str, Any]] = {}
    for place, row in json_rows(path, what):
        key, response = row.get("id"), row.get("response")
        if not isinstance(key, str) or not key:
            raise UsageError(f'{place} has no "id".')
        if key in replies:
            raise UsageError(f"{place} repeats the id '{key}'.")
        if response is not None and not isinstance(response, str):
            raise UsageError(f'{place} has a "response" that is not text.')
        replies[key] = row
    return replies


@dataclass(frozen=True)
class RecordedReplies:
    """Replies as they lie in a file, or in a folder of recordings.

    Attributes:
        rows: conversation → its reply's row.
        recordings: conversation → the file of what was spoken, where there is one.
    """

    rows: dict[str, dict[str, Any]]
    recordings: dict[str, Path] = field(default_factory=dict)


def recorded_replies(path: Path) -> RecordedReplies:
    """The replies of a file, whose rows name recordings by `audio`; or of a folder of them, named by conversations.

    Raises:
        UsageError: as `read_replies` says, or a recording is not there, or one conversation has two.
    """
    if path.is_dir():
        found: dict[str, Path] = {}
        for file in sorted(path.iterdir()):
            if file.suffix.lower() in RECORDINGS and file.is_file():
                if file.stem in found:
                    raise UsageError(f"The folder '{path}' holds two recordings of '{file.stem}'; leave one there.")
                found[file.stem] = file
        if not found:
            raise UsageError(
                f"The folder '{path}' holds no recording of a reply; name each by its conversation, such as "
                f"ID{RECORDINGS[0]}, or give a file of replies."
            )
        return RecordedReplies({key: {"id": key} for key in found}, found)
    rows = read_replies(path)
    recordings = {}
    for key, row in rows.items():
        if row.get("audio") is not None:
            try:
                recordings[key] = recording_file(path.parent, row["audio"])
            except RecordingError as error:
                raise UsageError(f"The reply to '{key:.100}' in the file of replies '{path}': {error}.") from error
    return RecordedReplies(rows, recordings)


class Replay:
    """Recorded replies: a JSONL file of `id` and `response`, and of `ttft_s`, `first_audio_s`, `total_s` if known.

    What was spoken is named by `audio`, the path of a recording in the file's folder; `response` is then what is said
    in it, where no transcriber is to write that down.
    """

    capabilities: ClassVar = Capabilities(speaks="always", is_free=True, may_be_path=True, is_recorded=True)

    @classmethod
    def open(cls, asked: Asked) -> Replay:
        """The replies of a file.

        Raises:
            UsageError: it cannot be read, or something is asked of the model that has given them, or there is nobody
                to write down what was spoken.
        """
        if asked.arguments or asked.options.api_base or asked.spoken.voice:
            raise UsageError(
                "replay: takes recorded replies as they are; leave out --model-arg, --api-base and --voice."
            )
        replies = cls(Path(asked.name), with_recordings=asked.spoken.output != "text")
        if asked.spoken.output == "audio" and not replies._recordings:
            raise UsageError(f"The replies of '{asked.name}' are none that were spoken; leave out --output audio.")
        unwritten = replies.unwritten
        if unwritten and asked.spoken.transcriber is None:
            raise UsageError(
                f"The reply to '{min(unwritten):.100}' is a recording without a \"response\", which is where the "
                "judge reads what is said; write it there, or name a --transcriber."
            )
        return replies

    def __init__(self, path: Path, name: str | None = None, *, with_recordings: bool = True) -> None:
        found = recorded_replies(path)
        self._replies = found.rows
        self._recordings = found.recordings if with_recordings else {}
        if not self._recordings and not any("response" in row for row in self._replies.values()):
            fields = ", ".join(sorted({field for row in self._replies.values() for field in row}))
            raise UsageError(
                f"No row of the file of replies '{path}' has a \"response\", which is where the text of a reply is "
                f"read; there is only {fields:.200}."
            )
        try:
            self._hashes = {key: file_sha256(file) for key, file in self._recordings.items()}
            content = None if path.is_dir() else file_sha256(path)
        except OSError as error:
            raise UsageError(f"A recording of '{path}' cannot be read ({error.strerror or error}).") from error
        if self._hashes:
            content = hashlib.sha256(json.dumps([content, sorted(self._hashes.items())]).encode()).hexdigest()
        self._identity = ModelIdentity(
            target=f"replay:{path}",
            adapter="replay",
            name=name or path.stem,
            parameters={"output": "audio"} if self._hashes else {},
            content_sha256=content,
            is_named=name is not None,
            is_recorded=True,
        )

    @property
    def identity(self) -> ModelIdentity:
        """The hash of the file and of its recordings; its name is for people."""
        return self._identity

    @property
    def conversations(self) -> Set[str]:
        """The ids of all its rows."""
        return self._replies.keys()

    @property
    def unwritten(self) -> Set[str]:
        """The conversations whose reply was spoken, and of which no row says what was said."""
        return {key for key in self._recordings if is_blank(self._replies[key].get("response") or "")}

    async def preflight(self) -> None:
        """Nothing to reach."""

    async def reply(self, prompt: Prompt) -> ModelReply:
        """The recorded reply; unscored where the file holds none for this conversation, or none that can be heard."""
        key = prompt.conversation_id
        row = self._replies.get(key)
        if row is None or (row.get("response") is None and key not in self._recordings):
            return ModelReply(None, Unscored.NOT_RECORDED, "the file of replies holds none for this conversation")
        audio = None
        if key in self._recordings:
            try:
                audio = await asyncio.to_thread(self._heard, key)
            except (OSError, AudioError) as error:
                return ModelReply(None, Unscored.NOT_RECORDED, f"the reply's recording is of no use: {error}")
        return ModelReply(
            row.get("response"), audio=audio, ttft_s=row.get("ttft_s"), first_audio_s=row.get("first_audio_s"),
            total_s=row.get("total_s"),
        )  # fmt: skip

    def _heard(self, key: str) -> bytes:
        """A reply's recording as a WAV file.

        Raises:
            OSError: it cannot be read.
            AudioError: it is not the one that makes the run what it is, or it cannot be decoded.
        """
        content = self._recordings[key].read_bytes()
        if hashlib.sha256(content).hexdigest() != self._hashes[key]:
            raise AudioError("the file has changed since it was first read")
        return as_wav_file(content)

    async def close(self) -> None:
        """Nothing to release."""
