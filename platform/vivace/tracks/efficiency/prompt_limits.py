"""Whether a model, and what was fitted for it, hold the prompts of a run: seen before the run is recorded."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from vivace.tasks.base import Sample, Task
from vivace.tasks.registry import parse_task
from vivace.tracks.efficiency.measured_models import MeasuredModel, tokenizer_of
from vivace.tracks.efficiency.prompts import PlannedPrompt
from vivace.tracks.efficiency.session.token_prompts import fitted_prompts, kept_ids
from vivace_methods.arms import ArmMember, FolderOf
from vivace_methods.protocol import MethodError

TEMPLATE_ROOM = 1024
"""Tokens that a chat template is taken to put around a prompt at most, where prompts need not be counted exactly."""


def check_prompts(
    members: Iterable[ArmMember], target: MeasuredModel, prompts: Sequence[PlannedPrompt], folder_of: FolderOf
) -> None:
    """See that every prompt can be asked, and is held together with its answer.

    Args:
        members: of the run's arms.
        target: the model, whose files are here.
        prompts: that it is asked.
        folder_of: where what was fitted lies.

    Raises:
        MethodError: one cannot be asked of the model, or is longer than it, or something fitted, holds.
        UsageError: one cannot be asked in as few tokens as its task's settings say.
    """
    vocabulary, positions = target.limits()
    fitted = {
        held: member
        for member in members
        if member.fitted is not None and (held := member.method.positions(folder_of(member.fitted))) is not None
    }
    least = min(fitted, default=None)
    bounds = [each for each in (positions, least) if each is not None]
    folder = None if target.checkpoint is None else target.checkpoint.fetched()
    if not bounds or (folder is not None and _surely_held(prompts, folder, min(bounds))):
        return  # the package that knows the tokenizer takes seconds to import
    tokenizer = tokenizer_of(folder)
    for prompt in fitted_prompts(prompts, tokenizer):
        kept, _ = kept_ids(prompt, tokenizer, vocabulary, positions)
        needed = len(kept) + prompt.most_tokens
        if least is not None and needed > least:
            raise MethodError(
                f"{fitted[least].fitted} holds {least} positions, and the prompt {prompt.name} and its answer take "
                f"up to {needed}: ask for fewer tokens, or take another one for {fitted[least].method.name}."
            )


def _surely_held(prompts: Sequence[PlannedPrompt], folder: Path, positions: int) -> bool:
    """Whether prompts are so short that they are held in any chat template, and asked of every model alike."""
    names = dict.fromkeys(prompt.task for prompt in prompts)
    if any(type(parse_task(name)).fitted is not Task.fitted for name in names):
        return False
    tokens = _counting(folder)
    return tokens is not None and all(tokens(prompt.sample) + prompt.most_tokens <= positions for prompt in prompts)


def _counting(folder: Path) -> Callable[[Sample], int] | None:
    """Counts at most as few tokens as a prompt can take in a template; None where there is no fast tokenizer."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        told = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except Exception:  # what is wrong with it is said by who reads it in earnest
        return None
    tokenizer.no_truncation()
    has_template = "chat_template" in told or any(folder.glob("*chat_template*"))
    room = TEMPLATE_ROOM if has_template else 0
    return lambda sample: len(tokenizer.encode(sample.prompt + sample.begun).ids) + room
