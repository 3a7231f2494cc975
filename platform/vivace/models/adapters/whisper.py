"""`whisper:NAME`: OpenAI's Whisper on this machine by way of faster-whisper, which runs it with CTranslate2."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import ClassVar

from vivace.models.adapters.local import HeldModel
from vivace.models.base import ModelIdentity
from vivace.models.local.whisper_models import model_sha256, read_target


class HeldWhisper(HeldModel):
    """A Whisper model in a process of its own.

    Args:
        target: `whisper:NAME`, with settings `whisper(setting=value,…):NAME`.
        timeout_s: for one recording.
        home: the folder that packaged models lie in.

    Raises:
        UsageError: the target is wrong, or there is no such model.
        UnreachableError: a branch has to be looked up, and the hub does not answer.
    """

    worker: ClassVar = [sys.executable, "-P", "-m", "vivace.models.local.whisper_worker"]
    needs: ClassVar[tuple[str, ...]] = ("faster_whisper",)
    extra: ClassVar = "packaged"

    def __init__(self, target: str, timeout_s: float, home: Path) -> None:
        model, listening = read_target(target, home)
        identity = ModelIdentity(
            target=f"whisper:{model.folder}" if model.folder else f"whisper:{model.name}@{model.commit}",
            adapter="whisper",
            name=model.name,
            parameters=asdict(listening),
            content_sha256=model_sha256(model.folder) if model.folder else None,
        )
        super().__init__(identity, model.fetched, asdict(listening), timeout_s=timeout_s)
