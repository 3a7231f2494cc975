"""`replay:FILE`: a system known by its recorded replies, the way a team submits outputs instead of a model."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path
from typing import Any, ClassVar

from vivace.errors import UsageError
from vivace.files.content_hash import file_sha256
from vivace.files.text import json_rows
from vivace.models.adapters.base import Asked, Capabilities
from vivace.models.base import ModelIdentity, ModelReply, Prompt
from vivace_rubrics.criteria import Unscored


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


class Replay:
    """Recorded replies, read from a JSONL file of `id` and `response` (and `ttft_s`, `total_s` if known)."""

    capabilities: ClassVar = Capabilities(is_free=True, may_be_path=True, is_recorded=True)

    @classmethod
    def open(cls, asked: Asked) -> Replay:
        """The replies of a file.

        Raises:
            UsageError: it cannot be read, or something is asked of the model that has given them.
        """
        if asked.arguments or asked.options.api_base:
            raise UsageError("replay: takes recorded replies as they are; leave out --model-arg and --api-base.")
        return cls(Path(asked.name))

    def __init__(self, path: Path, name: str | None = None) -> None:
        self._replies = read_replies(path)
        if not any("response" in row for row in self._replies.values()):
            fields = ", ".join(sorted({field for row in self._replies.values() for field in row}))
            raise UsageError(
                f"No row of the file of replies '{path}' has a \"response\", which is where the text of a reply is "
                f"read; there is only {fields:.200}."
            )
        self._identity = ModelIdentity(
            target=f"replay:{path}",
            adapter="replay",
            name=name or path.stem,
            content_sha256=file_sha256(path),
            is_named=name is not None,
            is_recorded=True,
        )

    @property
    def identity(self) -> ModelIdentity:
        """The hash of the file; its name is for people."""
        return self._identity

    @property
    def conversations(self) -> Set[str]:
        """The ids of all its rows."""
        return self._replies.keys()

    async def preflight(self) -> None:
        """Nothing to reach."""

    async def reply(self, prompt: Prompt) -> ModelReply:
        """The recorded reply; unscored where the file holds none for this conversation."""
        row = self._replies.get(prompt.conversation_id)
        if row is None or row.get("response") is None:
            return ModelReply(None, Unscored.NOT_RECORDED, "the file of replies holds none for this conversation")
        return ModelReply(row["response"], ttft_s=row.get("ttft_s"), total_s=row.get("total_s"))

    async def close(self) -> None:
        """Nothing to release."""
