"""How well a model predicts a text, and how far two models' predictions lie apart, token by token.

There is nothing to answer here, so that this is no task: a text (WikiText, C4, one's own) is cut into windows, and
each token of a window is predicted from those before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vivace.errors import UsageError
from vivace.files.splits import patterns_of_others
from vivace.files.text import LONGEST_ROWS
from vivace.files.text import read_text as read_file
from vivace.statistics.intervals import student
from vivace.tasks.published.files import READABLE, ColumnError, read_rows, task_files, text_of
from vivace.tasks.published.hub import located

if TYPE_CHECKING:
    import torch

PARAGRAPH = "\n\n"
"""What stands between the rows of a dataset, as is usual for WikiText's perplexity."""
_POSITIONS = 256
"""Of which the predictions are held in double precision at once: a vocabulary may have 100,000 words and more."""


@dataclass(frozen=True)
class Perplexity:
    """What a model made of some windows.

    Attributes:
        nats: of each window, the sum of the negative logarithms of its tokens' probabilities.
        tokens: of each window, how many were predicted: all but the first.
    """

    nats: tuple[float, ...]
    tokens: tuple[int, ...]

    @property
    def value(self) -> float:
        """The exponential of the mean over all predicted tokens; infinite where one was thought impossible."""
        return _exponential(math.fsum(self.nats) / sum(self.tokens))

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the value over windows; None of fewer than two, or where all are alike.

        The mean is a ratio of sums, linearised by window (Cochran 1977, section 6.3): tokens of one window are not
        independent. Student's t with windows − 1 degrees of freedom.
        """
        count, total = len(self.tokens), sum(self.tokens)
        if count < 2:
            return None
        mean = math.fsum(self.nats) / total
        squares = math.fsum((nats - mean * tokens) ** 2 for nats, tokens in zip(self.nats, self.tokens, strict=True))
        if not squares:
            return None
        half = student(count - 1) * math.sqrt(count / (count - 1) * squares) / total
        return _exponential(mean - half), _exponential(mean + half)


def _exponential(nats: float) -> float:
    try:
        return math.exp(nats)
    except OverflowError:
        return math.inf


def read_text(path: str, split: str = "test") -> str:
    """The text of a `.txt` file, or the column `text` of the rows of a .jsonl, .json or .parquet file or folder.

    Args:
        path: a file, or a folder of such files in the order of their names; or either in a dataset on the hub,
            HUB-ID@REVISION/FOLDER.
        split: files of a folder that belong to another split are left out.

    Raises:
        UsageError: there is no text, or it cannot be read.
        UnreachableError: the hub does not answer.
    """
    found = located(path, (".txt", *READABLE), patterns_of_others(split))
    if found.suffix.lower() == ".txt":
        return read_file(found, "text", LONGEST_ROWS)
    return PARAGRAPH.join(_texts(task_files(found, split)))


def _texts(paths: Sequence[Path]) -> Iterator[str]:
    for path in paths:
        for place, row in read_rows(path):
            try:
                yield text_of(row, "text")
            except ColumnError as error:
                raise UsageError(f"{place} {error}, which perplexity needs.") from error


def windows(text: str, tokenizer: Any, length: int) -> list[list[int]]:
    """A text in windows of so many tokens, one after the other; what is left at the end is dropped.

    The text is tokenized once and whole, so that a token that begins texts stands in the first window only.

    Args:
        text: whole.
        tokenizer: of the model.
        length: of a window, in tokens, at least 2.

    Raises:
        UsageError: the text has fewer tokens than one window.
    """
    if length < 2:
        raise UsageError(f"A window has at least 2 tokens, of which the second is predicted, not {length}.")
    tokens = list(tokenizer(text, verbose=False)["input_ids"])
    if len(tokens) < length:
        raise UsageError(f"The text has {len(tokens)} tokens, fewer than one window of {length}.")
    return [tokens[start : start + length] for start in range(0, len(tokens) - length + 1, length)]


def perplexity(model: Any, windows: Sequence[Sequence[int]]) -> Perplexity:
    """How well a model predicts the tokens of some windows, each read anew.

    Args:
        model: a causal language model of transformers, in evaluation mode, whatever method is applied to it.
        windows: token ids, at least one window of at least two.
    """
    return Perplexity(
        nats=tuple(math.fsum(_nats(model, window)) for window in windows),
        tokens=tuple(len(window) - 1 for window in windows),
    )


def _nats(model: Any, window: Sequence[int]) -> Iterator[float]:
    """The nats of a window, some positions' sum at a time."""
    for logits, wanted in zip(_logits(model, window[:-1]), _tensor(window[1:]).split(_POSITIONS), strict=True):
        chosen = logits.double().log_softmax(-1).gather(-1, wanted[:, None].to(logits.device))
        yield -float(chosen.sum())


def divergence(reference: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """The Kullback-Leibler divergence from one prediction to another, in nats: 0 where they are the same.

    Args:
        reference: logits, shape (…, vocabulary); what it thinks impossible does not count.
        other: logits of the same shape; infinite where it thinks something impossible that the reference does not.

    Returns:
        Of each token, shape (…), in double precision.
    """
    import torch

    expected, found = reference.double().log_softmax(-1), other.double().log_softmax(-1)
    shares = expected.exp()
    terms = torch.where(shares > 0, shares * (expected - found), 0.0)
    return terms.sum(-1).clamp(min=0.0)


def divergences(reference: Any, other: Any, window: Sequence[int]) -> list[float]:
    """How far two models' predictions after each token of a window lie apart, in nats.

    Args:
        reference: a causal language model of transformers, in evaluation mode.
        other: another one of the same vocabulary, or a copy of it with a method applied.
        window: token ids; the last one's prediction counts too.
    """
    pairs = zip(_logits(reference, window), _logits(other, window), strict=True)
    return [value for first, second in pairs for value in divergence(first, second.to(first.device)).tolist()]


def _logits(model: Any, window: Sequence[int]) -> Sequence[torch.Tensor]:
    """The predictions after each token of a window, some positions at a time."""
    import torch

    with torch.inference_mode():
        logits: torch.Tensor = model(_tensor([window]).to(model.device), use_cache=False).logits[0]
    return tuple(logits.split(_POSITIONS))


def _tensor(ids: Any) -> torch.Tensor:
    import torch

    return torch.tensor(ids)
