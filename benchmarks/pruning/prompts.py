"""What a model is asked where ways to read prompts are compared: needles of known places, articles, questions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

from vivace.tasks.base import Sample, Span
from vivace.tasks.fitted.ruler_synth import RulerSynth
from vivace.tasks.published.chat_prompts import ChatPrompts
from vivace.tasks.published.cnn_dailymail import CnnDailyMail
from vivace.tasks.scores.metrics import score
from vivace.tracks.efficiency.session.token_prompts import evidence_tokens, sample_ids

SEED = 1
NEEDLES = {"one key": "niah_single_2", "several keys": "niah_multikey_1", "several values": "niah_multivalue"}
KINDS = (
    "one key", "several keys", "article", "one key", "several values", "question", "one key", "several keys",
)  # fmt: skip
"""What is asked in turn, so that any number of prompts has some of each."""
TOLD = "Summarize the text above in one sentence."
MOST_TOKENS = {"one key": 12, "several keys": 12, "several values": 44, "article": 24, "question": 16}


@dataclass(frozen=True)
class Asked:
    """One prompt.

    Attributes:
        name: unique.
        kind: of `KINDS`.
        ids: its tokens.
        most_tokens: of the answer.
        evidence: places, among the tokens, of what the answer needs; empty where that is not known.
        values: those of them that hold the very values that are asked for.
        sample: the question with its references.
    """

    name: str
    kind: str
    ids: tuple[int, ...]
    most_tokens: int
    evidence: tuple[int, ...]
    values: tuple[int, ...]
    sample: Sample

    def is_right(self, answer: str) -> bool | None:
        """Whether an answer holds all that was asked for; None where there is nothing to compare with."""
        return score(answer, "contains_all", self.sample) == 1.0 if self.sample.references else None


def prompts(tokenizer: Any, length: int, count: int, folder: Path | None) -> list[Asked]:
    """Prompts of about a length, the answer with it, each kind in its turn.

    Args:
        tokenizer: of the model.
        length: in tokens.
        count: of prompts.
        folder: with `sum.jsonl` and `qa.jsonl` in EAGLE's form; None asks for needles alone.
    """
    kinds = [kind for kind in KINDS if kind in NEEDLES or folder is not None]
    number = dict.fromkeys(kinds, 0)
    texts = None if folder is None else Texts(folder)
    found = []
    for kind, _ in zip(cycle(kinds), range(count), strict=False):
        if kind in NEEDLES:
            found.append(_needle(tokenizer, kind, length, number[kind]))
        else:
            assert texts is not None
            found.append(_text(tokenizer, texts, kind, length, number[kind]))
        number[kind] += 1
    return found


def _needle(tokenizer: Any, kind: str, length: int, index: int) -> Asked:
    task = RulerSynth(NEEDLES[kind], length)
    sample = task.fitted(task.samples(index + 1, SEED)[index], lambda each: len(sample_ids(each, tokenizer)))
    told = tuple(
        Span(start, start + len(value)) for value in sample.references if (start := sample.prompt.index(value)) >= 0
    )
    values = evidence_tokens(_with_evidence(sample, told), tokenizer)
    ids, evidence = tuple(sample_ids(sample, tokenizer)), evidence_tokens(sample, tokenizer)
    return Asked(f"{kind} {index}", kind, ids, MOST_TOKENS[kind], evidence, values, sample)


def _with_evidence(sample: Sample, spans: tuple[Span, ...]) -> Sample:
    return Sample(sample.id, sample.prompt, (), spans, plain=sample.plain, begun=sample.begun)


class Texts:
    """Articles and questions of a folder.

    Args:
        folder: with `sum.jsonl` and `qa.jsonl`.
    """

    def __init__(self, folder: Path) -> None:
        articles = CnnDailyMail(str(folder / "sum.jsonl")).samples(None, SEED)
        self.articles = [sample.prompt.removeprefix("Summarize: ") for sample in articles]
        self.questions = [sample.prompt for sample in ChatPrompts(str(folder / "qa.jsonl")).samples(None, SEED)]

    def words(self, index: int) -> Iterator[str]:
        """Words of articles one after the other, from another one on for each index, without end."""
        while True:
            yield from self.articles[index % len(self.articles)].split(" ")
            index += 1


def _text(tokenizer: Any, texts: Texts, kind: str, length: int, index: int) -> Asked:
    """As much of some articles as fits, and what is asked behind it."""
    room = length - MOST_TOKENS[kind]
    words = [word for word, _ in zip(texts.words(7 * index), range(length), strict=False)]
    question = TOLD if kind == "article" else texts.questions[index % len(texts.questions)]

    def asked(count: int) -> Sample:
        return Sample(str(index), f"{' '.join(words[:count])}\n\n{question}", ())

    low, high = 1, len(words)
    while low < high:  # the most words that fit
        middle = (low + high + 1) // 2
        fits = len(sample_ids(asked(middle), tokenizer)) <= room
        low, high = (middle, high) if fits else (low, middle - 1)
    sample = asked(low)
    return Asked(f"{kind} {index}", kind, tuple(sample_ids(sample, tokenizer)), MOST_TOKENS[kind], (), (), sample)


def share(places: Sequence[int], kept: set[int]) -> float | None:
    """How much of some places is among those that are kept; None where there are none."""
    return sum(place in kept for place in places) / len(places) if places else None
