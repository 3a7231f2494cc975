"""The text that methods are fitted on: a file's, or samples of generated tasks that are never asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from vivace.errors import UsageError
from vivace.files.content_hash import file_sha256
from vivace.files.text import LONGEST_ROWS, read_text
from vivace.tasks.generated.base import GeneratedTask
from vivace.tasks.registry import parse_task
from vivace_methods.spelling import split_list

TOKENS = 8192
"""Of a calibration, where nobody says how many."""
WINDOW = 512
"""Tokens of one text that is cut from a file."""
SEED = 0


@dataclass(frozen=True)
class Calibration:
    """Where calibration text comes from; nothing is read yet.

    Attributes:
        name: as a recipe says it.
        file: of text; None where tasks give it.
        tasks: that make it.
    """

    name: str
    file: Path | None
    tasks: tuple[GeneratedTask, ...]

    @property
    def identity(self) -> Any:
        """What makes it the same text, as JSON has it: a file's content, wherever it lies, or the tasks.

        Raises:
            UsageError: the file cannot be read.
        """
        if self.file is None:
            return [[task.name, task.settings, task.revision] for task in self.tasks]
        try:
            return file_sha256(self.file)
        except OSError as error:
            raise UsageError(f"The calibration text {self.file} cannot be read ({error.strerror}).") from error

    def texts(self, model: Any, tokenizer: Any, tokens: int) -> list[Any]:
        """Token ids, each of shape (1, length): so many tokens in all, or all that a file has.

        Args:
            model: that is calibrated.
            tokenizer: the model's; None where it has none.
            tokens: wanted.

        Raises:
            UsageError: the file cannot be read.
            MethodError: a model that has no tokenizer, and text that is none of ids.
        """
        import torch

        from vivace.tracks.efficiency.session.token_prompts import token_ids

        longest = getattr(model.config.get_text_config(), "max_position_embeddings", None) or WINDOW
        if self.file is not None:
            return _windows(self.file, tokenizer, min(longest, WINDOW), tokens)
        found: list[Any] = []
        missing = tokens
        for place in count():
            for task in self.tasks:
                sample = task.sample(SEED, place, held_out=False)
                answer = sample.references[0] if sample.references else ""
                ids = token_ids(sample.prompt, tokenizer, answer, plain=sample.plain)[:longest]
                found.append(torch.tensor([ids]))
                missing -= len(ids)
            if missing <= 0:
                return found
        raise AssertionError  # samples have no end


def find_calibration(written: str | None, asked: Sequence[str]) -> Calibration:
    """What to calibrate on.

    Args:
        written: a text file or tasks, separated by commas outside of brackets; None for those tasks among the asked
            ones that are generated.
        asked: the tasks of the run.

    Raises:
        UsageError: there is no such file or task, or nothing to calibrate on.
    """
    if written is not None and Path(written).is_file():
        return Calibration(Path(written).name, Path(written), ())
    texts = asked if written is None else split_list(written)
    try:
        tasks = {text.strip(): parse_task(text) for text in texts}
    except UsageError as error:
        if written is None:
            raise
        raise UsageError(
            f"'{written}' is neither a text file nor generated tasks to calibrate on. {error}"
        ) from error
    generated = {text: task for text, task in tasks.items() if isinstance(task, GeneratedTask)}
    if not generated or (written is not None and len(generated) < len(tasks)):
        raise UsageError(
            "There is nothing to calibrate on: name a text file or generated tasks, as in --calibration stories, or "
            "a recipe that is fitted already, as in teal:FOLDER."
        )
    return Calibration(f"samples of {', '.join(generated)} that are never asked", None, tuple(generated.values()))


def _windows(file: Path, tokenizer: Any, length: int, tokens: int) -> list[Any]:
    import torch

    from vivace.tracks.efficiency.session.token_prompts import token_ids

    ids = token_ids(read_text(file, "calibration text", LONGEST_ROWS), tokenizer, plain=True)[:tokens]
    found = [torch.tensor([ids[first : first + length]]) for first in range(0, len(ids), length)]
    return [text for text in found if text.shape[1] > 1]
