"""What recipes of language models share: rows of prompts with answers, two optimisers, and their schedule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vivace.tasks.generated import GeneratedTask

if TYPE_CHECKING:
    import torch

PROMPT_WEIGHT = 0.1
"""Of a prompt's token in the loss, where an answer's counts 1."""
_VOCABULARY_SAMPLES = 3000
"""From each task, to find its words: far more than it takes to meet them all."""
_IGNORED = -100


@dataclass(frozen=True)
class Rows:
    """A batch of texts, padded on the right.

    Attributes:
        ids: token ids, shape (rows, longest).
        weights: of each token as a target in the loss, 0 for the padding, same shape.
        answers: whether each token belongs to an answer, same shape.
    """

    ids: torch.Tensor
    weights: torch.Tensor
    answers: torch.Tensor


@dataclass(frozen=True)
class Mixture:
    """Training samples of several tasks, so many of each in every batch.

    Attributes:
        tasks: each with its rows in a batch.
        seed: chooses the samples.
    """

    tasks: Sequence[tuple[GeneratedTask, int]]
    seed: int

    def texts(self, task: GeneratedTask, first: int, count: int) -> list[tuple[str, str]]:
        """Prompts and answers of one task, none of which is ever asked."""
        drawn = (task.sample(self.seed, index, held_out=False) for index in range(first, first + count))
        return [(sample.prompt, sample.references[0]) for sample in drawn]

    def words(self) -> Iterator[str]:
        """Texts in which every word of the tasks occurs."""
        for task, _ in self.tasks:
            yield from (prompt + answer for prompt, answer in self.texts(task, 0, _VOCABULARY_SAMPLES))

    def batch(self, step: int, tokenizer: Any) -> Rows:
        """The rows of a step, from 0; those of other steps are other samples."""
        texts = [text for task, rows in self.tasks for text in self.texts(task, step * rows, rows)]
        return rows_of(texts, tokenizer)


def rows_of(texts: Sequence[tuple[str, str]], tokenizer: Any) -> Rows:
    """Prompts with their answers as rows; each ends with the end token, which belongs to the answer."""
    import torch

    prompts = [tokenizer(prompt)["input_ids"] for prompt, _ in texts]
    answers = [tokenizer(answer, add_special_tokens=False)["input_ids"] for _, answer in texts]
    longest = max(len(prompt) + len(answer) + 1 for prompt, answer in zip(prompts, answers, strict=True))
    ids = torch.full((len(texts), longest), tokenizer.pad_token_id)
    weights, in_answer = torch.zeros(len(texts), longest), torch.zeros(len(texts), longest, dtype=torch.bool)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        whole = [*prompt, *answer, tokenizer.eos_token_id]
        ids[row, : len(whole)] = torch.tensor(whole)
        weights[row, : len(prompt)] = PROMPT_WEIGHT
        weights[row, len(prompt) : len(whole)] = 1.0
        in_answer[row, len(prompt) : len(whole)] = True
    return Rows(ids, weights, in_answer)


def next_token_loss(logits: torch.Tensor, rows: Rows) -> torch.Tensor:
    """The weighted mean cross-entropy of each next token.

    Args:
        logits: shape (rows, longest, vocabulary).
        rows: what they are the logits of.
    """
    import torch

    weights = rows.weights[:, 1:].reshape(-1)
    kept = weights > 0
    losses = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1)[kept].float(), rows.ids[:, 1:].reshape(-1)[kept], reduction="none"
    )
    return (losses * weights[kept]).sum() / weights[kept].sum()


class Optimisers:
    """Muon on some matrices and AdamW on all else, with warm-up and a linear fall towards the end.

    Args:
        model: whose parameters are trained.
        matrices: the parameters, of two dimensions, that Muon takes.
        steps: of the whole training.
        muon_rate: learning rate of Muon.
        adam_rate: learning rate of AdamW.
        warm_up: steps in which the rates rise.
        falling: the share of the steps, the last ones, in which they fall to zero.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        matrices: Sequence[torch.nn.Parameter],
        *,
        steps: int,
        muon_rate: float,
        adam_rate: float,
        warm_up: int = 30,
        falling: float = 0.4,
    ) -> None:
        import torch

        taken = {id(matrix) for matrix in matrices}
        others = [each for each in model.parameters() if id(each) not in taken and each.requires_grad]
        self._parameters = [*matrices, *others]
        self._rated: list[tuple[torch.optim.Optimizer, float]] = [
            (torch.optim.AdamW(others, lr=adam_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True), adam_rate)
        ]
        if matrices:
            self._rated.append((torch.optim.Muon(matrices, lr=muon_rate, weight_decay=0.0), muon_rate))
        self._steps, self._warm_up, self._falling = steps, warm_up, falling

    def step(self, step: int, loss: torch.Tensor) -> float:
        """Follow a loss's gradient, and give the loss as a number.

        Args:
            step: from 0.
            loss: whose gradient is not yet computed.
        """
        import torch

        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        left = (self._steps - step) / (self._steps * self._falling)
        share = min(1.0, (step + 1) / self._warm_up, left)
        for optimiser, rate in self._rated:
            for group in optimiser.param_groups:
                group["lr"] = rate * share
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        return float(loss.detach())


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a model as bf16 safetensors, and its tokenizer."""
    import torch

    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
