"""Whether arms fit into the memory that is free beside their model, which is asked before anything is timed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vivace_methods.arms import Arm, FolderOf
from vivace_methods.models.free_memory import require_free, stored_bytes
from vivace_methods.protocol import MethodError
from vivace_methods.timing.trials import TimedPrompt


def memory_needed(
    model: Any, arms: Mapping[str, Arm], prompts: Sequence[TimedPrompt], folder_of: FolderOf = Path
) -> dict[str, int]:
    """About how many bytes each arm takes at most, beside the model's weights, which all share.

    Args:
        model: a causal language model of transformers.
        arms: name → arm.
        prompts: what they are to answer.
        folder_of: finds what was fitted.

    Returns:
        Name → bytes, of those arms of which it can be told.
    """
    sizes = {(each.request.prompt.shape[1], each.request.most_tokens) for each in prompts}
    needed = {}
    for name, arm in arms.items():
        folders = [folder_of(member.fitted) for member in arm.members if member.fitted is not None]
        fitted = sum(stored_bytes(folder, model.dtype) for folder in folders)
        try:
            answers = (arm.memory(model.config, model.dtype, prompt, answer) for prompt, answer in sizes)
            needed[name] = fitted + max(answers, default=0)
        except MethodError:
            continue
    return needed


def require_fitting(
    model: Any, arms: Mapping[str, Arm], prompts: Sequence[TimedPrompt], folder_of: FolderOf = Path
) -> None:
    """Refuse arms that cannot fit into the memory that is free beside the model.

    Raises:
        MethodError: one does not.
    """
    if model.device.type != "cpu":
        return
    for name, needed in memory_needed(model, arms, prompts, folder_of).items():
        require_free(needed, model.device, f"The arm {name}", "leave it out, or give it shorter prompts")
