"""What a model itself answers to prompts, many at a time, kept line by line so that nothing is written twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vivace.errors import UsageError, VivaceError

ROWS = 16
"""Prompts that are answered together."""


@dataclass(frozen=True)
class ReadPrompt:
    """A prompt as the model reads it.

    Attributes:
        name: unique among those that are asked.
        ids: token ids, with the chat template where there is one.
    """

    name: str
    ids: tuple[int, ...]


@dataclass(frozen=True)
class OwnAnswer:
    """One answer of the model's own.

    Attributes:
        question: its name.
        number: from 0; the first answer is the greedy one, others are drawn at temperature 1.
        answer: token ids, with the end token where it came to its end.
    """

    question: str
    number: int
    answer: tuple[int, ...]


class Kept:
    """The answers that were written so far, in a file of JSON lines.

    Args:
        path: of the file; it is made where there is none.
        made_of: what makes the answers those that are wanted: the model, the prompts, the longest answer.

    Raises:
        UsageError: the file holds answers of another model, or to other prompts.
        VivaceError: it cannot be read or written.
    """

    def __init__(self, path: Path, made_of: str) -> None:
        self._path = path
        self.answers: dict[tuple[str, int], OwnAnswer] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            written = path.read_text(encoding="utf-8") if path.is_file() else ""
            # A line that a kill cut short is written anew.
            head, *lines = written[: written.rfind("\n") + 1].splitlines() or [""]
            if head and head != made_of:
                raise UsageError(
                    f"{path} holds answers of another model, or to other prompts; give another folder with --output."
                )
            for line in lines:
                read = json.loads(line)
                its = OwnAnswer(str(read["question"]), int(read["number"]), tuple(map(int, read["answer"])))
                self.answers[its.question, its.number] = its
            path.write_text("\n".join([made_of, *lines]) + "\n", encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise VivaceError(f"{path} cannot be read and written: {error}.") from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise VivaceError(f"{path} is damaged: remove it, and the answers are written anew.") from error

    def add(self, answers: Sequence[OwnAnswer]) -> None:
        """Keep some more.

        Raises:
            VivaceError: they cannot be written.
        """
        self.answers |= {(each.question, each.number): each for each in answers}
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(asdict(each)) + "\n" for each in answers)
        except OSError as error:
            raise VivaceError(f"{self._path} cannot be written: {error.strerror}.") from error


def write_answers(
    model: Any,
    questions: Sequence[ReadPrompt],
    kept: Kept,
    *,
    each: int,
    most_tokens: int,
    ends: Sequence[int],
    seed: int,
    on_step: Callable[[int, int], None],
) -> list[OwnAnswer]:
    """So many answers of the model to each question; those that are kept are not written anew.

    Args:
        model: a causal language model of transformers, in evaluation mode.
        questions: to answer.
        kept: the answers so far, where new ones go.
        each: answers to a question.
        most_tokens: of an answer.
        ends: token ids that end one.
        seed: of those that are drawn.
        on_step: told of the answers that are there, and of all.
    """
    wanted = [(question, number) for number in range(each) for question in questions]
    missing = [(question, number) for question, number in wanted if (question.name, number) not in kept.answers]
    on_step(len(wanted) - len(missing), len(wanted))
    for number, batch in _batches(missing):
        kept.add(_answers(model, batch, number, most_tokens, ends, seed))
        on_step(sum((question.name, its) in kept.answers for question, its in wanted), len(wanted))
    return [kept.answers[question.name, number] for question, number in wanted]


def _batches(missing: Sequence[tuple[ReadPrompt, int]]) -> Iterator[tuple[int, list[ReadPrompt]]]:
    """Questions of like length together, for the shorter ones are padded to the longest."""
    for number in sorted({number for _, number in missing}):
        questions = sorted((question for question, its in missing if its == number), key=lambda it: len(it.ids))
        for first in range(0, len(questions), ROWS):
            yield number, questions[first : first + ROWS]


def _answers(
    model: Any, batch: Sequence[ReadPrompt], number: int, most_tokens: int, ends: Sequence[int], seed: int
) -> list[OwnAnswer]:
    import torch
    from transformers import GenerationConfig

    longest = max(len(question.ids) for question in batch)
    padding = ends[0] if ends else 0
    ids = torch.tensor([[padding] * (longest - len(question.ids)) + list(question.ids) for question in batch])
    mask = torch.tensor([[0] * (longest - len(question.ids)) + [1] * len(question.ids) for question in batch])
    drawn = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0} if number else {"do_sample": False}
    configuration = GenerationConfig(
        max_new_tokens=most_tokens, eos_token_id=list(ends) or None, pad_token_id=padding, **drawn
    )
    named = "\n".join([str(seed), str(number), *(question.name for question in batch)])
    with torch.inference_mode(), torch.random.fork_rng():
        torch.manual_seed(int.from_bytes(hashlib.sha256(named.encode()).digest()[:8]))
        found = model.generate(
            ids.to(model.device), attention_mask=mask.to(model.device), generation_config=configuration
        )[:, longest:].tolist()
    return [
        OwnAnswer(question.name, number, tuple(_ended(answer, ends)))
        for question, answer in zip(batch, found, strict=True)
    ]


def _ended(answer: Sequence[int], ends: Sequence[int]) -> Sequence[int]:
    """An answer up to its first end token, for what follows is padding."""
    for place, token in enumerate(answer):
        if token in ends:
            return answer[: place + 1]
    return answer
