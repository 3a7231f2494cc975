"""What recipes of language models share: rows of prompts with answers, two optimisers, and their schedule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vivace.tasks.generated.base import GeneratedTask

if TYPE_CHECKING:
    import torch

PROMPT_WEIGHT = 0.1
"""Of a prompt's token in the loss, where an answer's counts 1."""
_VOCABULARY_SAMPLES = 3000
"""From each task, to find its words: far more than it takes to meet them all."""
_IGNORED = -100


@dataclass(frozen=True)
class Rows:
    """A batch of texts, padded on the right; a row holds one, or several that do not see each other.

    Attributes:
        ids: token ids, shape (rows, longest).
        positions: of each token in its text, same shape; transformers' models know by them where a text begins.
        weights: of each token as a target in the loss, 0 for a text's first and for the padding, same shape.
        answers: whether each token belongs to an answer, same shape.
    """

    ids: torch.Tensor
    positions: torch.Tensor
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

    def batch(self, step: int, tokenizer: Any, room: int = 0) -> Rows:
        """The rows of a step, from 0, packed as `rows_of` says; those of other steps are other samples."""
        texts = [text for task, rows in self.tasks for text in self.texts(task, step * rows, rows)]
        return rows_of(texts, tokenizer, room)


def rows_of(texts: Sequence[tuple[str, str]], tokenizer: Any, room: int = 0) -> Rows:
    """Prompts with their answers as rows; each ends with the end token, which belongs to the answer.

    Args:
        texts: prompts and answers.
        tokenizer: theirs.
        room: tokens that a row of several texts may hold; a longer text has a row of its own, as all have with 0.
    """
    import torch

    prompts = [tokenizer(prompt)["input_ids"] for prompt, _ in texts]
    wholes = [
        [*prompt, *tokenizer(answer, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        for prompt, (_, answer) in zip(prompts, texts, strict=True)
    ]
    rows = _packed([len(whole) for whole in wholes], room)
    shape = len(rows), max(sum(len(wholes[text]) for text in row) for row in rows)
    ids = torch.full(shape, tokenizer.pad_token_id)
    positions, weights = torch.zeros(shape, dtype=torch.long), torch.zeros(shape)
    answers = torch.zeros(shape, dtype=torch.bool)
    for row, held in enumerate(rows):
        start = 0
        for text in held:
            answer, end = start + len(prompts[text]), start + len(wholes[text])
            ids[row, start:end] = torch.tensor(wholes[text])
            positions[row, start:end] = torch.arange(end - start)
            weights[row, start + 1 : answer] = PROMPT_WEIGHT
            weights[row, answer:end] = 1.0
            answers[row, answer:end] = True
            start = end
        positions[row, start:] = torch.arange(shape[1] - start)
    return Rows(ids, positions, weights, answers)


def _packed(lengths: Sequence[int], room: int) -> list[list[int]]:
    """The texts of each row: without room to share each alone, else longest first, each where it first fits."""
    if not room:
        return [[text] for text in range(len(lengths))]
    rows: list[list[int]] = []
    for text in sorted(range(len(lengths)), key=lambda text: -lengths[text]):
        fitting = (row for row in rows if sum(lengths[each] for each in row) + lengths[text] <= room)
        row = next(fitting, None)
        if row is None:
            rows.append([text])
        else:
            row.append(text)
    return rows


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


def attention_matrices(model: Any) -> list[Any]:
    """The matrices of a model's attention, which learn faster with Muon."""
    return [weights for name, weights in model.named_parameters() if ".self_attn." in name and weights.ndim == 2]


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

        from vivace.zoo.training.muon import Muon

        taken = {id(matrix) for matrix in matrices}
        others = [each for each in model.parameters() if id(each) not in taken and each.requires_grad]
        self._parameters = [*matrices, *others]
        self._rated: list[tuple[torch.optim.Optimizer, float]] = [
            (torch.optim.AdamW(others, lr=adam_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True), adam_rate)
        ]
        if matrices:
            self._rated.append((Muon(matrices, muon_rate), muon_rate))
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
