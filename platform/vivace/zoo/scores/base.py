"""How good the zoo's models are at their tasks, and how that falls under rules that leave out more and more."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from vivace.statistics.intervals import LEVEL_Z, wilson
from vivace.zoo.registry import plain_name

ASKED = 240
"""Samples behind a score; an interval at 0.95 is then about 0.06 wide."""
SEED = 1
"""Of the samples that are asked; which lot they are from keeps them apart from training, whatever the seed."""

SCORERS: dict[str, str] = {
    "moe": "vivace.zoo.scores.moe:score_moe",
    "moe-drafter": "vivace.zoo.scores.drafter:score_moe_drafter",
    "dense": "vivace.zoo.scores.dense:score_dense",
    "dense-drafter": "vivace.zoo.scores.drafter:score_dense_drafter",
    "retrieval": "vivace.zoo.scores.retrieval:score_retrieval",
    "retrieval-drafter": "vivace.zoo.scores.drafter:score_retrieval_drafter",
}
"""Name → `module:function`, which takes the folders of a model and of those that it needs, and yields its scores."""


@dataclass(frozen=True)
class ZooScore:
    """One figure with its 95 % interval.

    Attributes:
        model: name of the zoo model.
        metric: `exact_match`, `tau`, `highest_tau`.
        slice: of the task; empty for the whole.
        rule: the rule that was applied; empty for the model as it is.
        level: what the rule was set to: experts, a share of tokens kept, a sparsity; None where there is no rule.
        value: of the metric.
        low: the interval's lower end.
        high: its upper end.
        n: samples.
    """

    model: str
    metric: str
    slice: str
    rule: str
    level: float | None
    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        """One line for people."""
        of = f" of {self.slice}" if self.slice else ""
        under = f" under {self.rule} at {self.level:g}" if self.rule else ""
        return (
            f"zoo:{self.model} {self.metric}{of}{under}: "
            f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f}, n={self.n})"
        )


Scorer = Callable[[Path, dict[str, Path]], Iterator[ZooScore]]


def score(name: str, folder: Path, needed: dict[str, Path]) -> Iterator[ZooScore]:
    """The scores of a model, its task's first and those under rules after it, as they become known.

    Args:
        name: of the model.
        folder: with its weights.
        needed: the folders of the models that it needs.

    Raises:
        UsageError: there is none of that name.
    """
    module, _, function = SCORERS[plain_name(name)].partition(":")
    return cast(Scorer, getattr(import_module(module), function))(folder, needed)


def share(
    model: str, right: Sequence[bool], *, metric: str = "exact_match", slice: str = "", rule: str = "",
    level: float | None = None,
) -> ZooScore:  # fmt: skip
    """A share of samples that are right, with Wilson's interval."""
    interval = wilson(sum(right), len(right))
    if interval is None:
        raise ValueError("there is no share of no samples")
    value = sum(right) / len(right)
    return ZooScore(model, metric, slice, rule, level, value, interval.low, interval.high, len(right))


def ratio(model: str, parts: Sequence[tuple[float, float]], *, metric: str, slice: str = "") -> ZooScore:
    """Σ a / Σ b over samples, with the interval of the ratio estimator (Cochran 1977, section 6.3).

    Args:
        model: name of the zoo model.
        parts: a and b of each sample, of at least two.
        metric: what the ratio is.
        slice: of the task.
    """
    n, total = len(parts), sum(b for _, b in parts)
    value = sum(a for a, _ in parts) / total
    squares = sum((a - value * b) ** 2 for a, b in parts)
    half = LEVEL_Z * math.sqrt(n / (n - 1) * squares) / total
    return ZooScore(model, metric, slice, "", None, value, value - half, value + half, n)


def same(answers: Sequence[str], references: Sequence[str]) -> list[bool]:
    """Whether each answer is its reference, but for space around it."""
    return [answer.strip() == reference.strip() for answer, reference in zip(answers, references, strict=True)]


def loaded(folder: Path, dtype: Any = None) -> tuple[Any, Any]:
    """A model, in fp32 unless another type is asked for, and its tokenizer."""
    import torch
    from transformers import AutoTokenizer

    from vivace_methods.models.loading import load_model

    return load_model(folder, dtype=dtype or torch.float32), AutoTokenizer.from_pretrained(folder)
