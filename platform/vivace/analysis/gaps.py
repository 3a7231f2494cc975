"""What hearing and speaking cost a model: the same model once through text and once through audio, side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from vivace.analysis.comparison import adjusted_p_values, paired
from vivace.analysis.misheard import LostToTheEar, lost_to_the_ear
from vivace.machine.manifest import fingerprint
from vivace.statistics.paired import Difference, apr_difference, ars_difference
from vivace.store.database import Database
from vivace.store.verdicts import JudgingCard, conversations_of, standing_judgings

Kind = Literal["hearing", "ear", "speaking"]
CASCADE = "cascade:"
STAGES = frozenset({"ear"})
"""Parameters of a cascade that its model knows nothing of, beside those of speech."""
SPEECH_PARAMETERS = frozenset({"output", "modalities", "audio", "voice", "transcriber"})
"""Parameters that say how an answer is given, and nothing about the model that gives it."""


@dataclass(frozen=True)
class Gap:
    """One score of a model through audio less the same through text, on the same conversations."""

    kind: Kind
    """`hearing`: audio in against transcripts in; `ear`: the same of a cascade, whose model reads either way.
    `speaking`: audio out against text out."""
    text: JudgingCard
    audio: JudgingCard
    metric: str
    difference: Difference
    p_adjusted: float | None
    """Corrected for all gaps found."""
    ear: LostToTheEar | None = None
    """Of an ear's gap, what it lost; None of others."""

    def as_json(self) -> dict[str, Any]:
        """The gap, flat; an ear's with its word error rate and the criteria that fell."""
        figures = {key: value for key, value in vars(self.difference).items() if key not in ("a", "b")}
        return {
            "kind": self.kind,
            "model": self.audio.model,
            "method": self.audio.method,
            "data": self.audio.data,
            "data_revision": self.audio.data_revision,
            "judge": self.audio.judge,
            "judge_fingerprint": self.audio.judge_fingerprint,
            "metric": self.metric,
            "form_text": _form(self.kind, self.text),
            "form_audio": _form(self.kind, self.audio),
            "judging_text": self.text.judging,
            "judging_audio": self.audio.judging,
            "value_text": self.difference.a,
            "value_audio": self.difference.b,
            "difference": self.difference.value,
            **figures,
            "p_adjusted": self.p_adjusted,
            **({} if self.ear is None else _told(self.ear)),
        }


def _told(ear: LostToTheEar) -> dict[str, Any]:
    return {"word_error_rate": ear.word_error_rate, "fell": [criterion.as_json() for criterion in ear.fell]}


def _form(kind: Kind, card: JudgingCard) -> str:
    return card.output_form if kind == "speaking" else card.input_form


def gaps(database: Database) -> list[Gap]:
    """Every gap that the recorded judgings show; of several judgings alike the newest whole one stands for all.

    A hearing gap is of the same model (fingerprint), data, judge, votes, method and way of answering. That of a
    cascade is its ear's: its model read the transcripts, as part of the cascade or by itself. A speaking gap is of
    models that differ in nothing but the way they were asked to answer. Differences are paired, as in a
    comparison, and all p-values are one family. Recorded replies have no gaps: they are what they are, whatever is
    put to them.
    """
    cards = [card for card in standing_judgings(database) if not card.target.startswith("replay:")]
    cards.sort(key=lambda card: card.standing != "ranked")
    pairs: list[tuple[Kind, JudgingCard, JudgingCard]] = [
        *(("hearing", text, audio) for text, audio in _hearing(cards)),
        *(("ear", text, audio) for text, audio in _ears(cards)),
        *(("speaking", text, audio) for text, audio in _speaking(cards)),
    ]
    found: list[tuple[Kind, JudgingCard, JudgingCard, str, Difference]] = []
    for kind, text, audio in pairs:
        matched = paired(conversations_of(database, text.judging), conversations_of(database, audio.judging))
        for metric, function in (("apr", apr_difference), ("ars", ars_difference)):
            difference = function(matched)
            if difference is not None:
                found.append((kind, text, audio, metric, difference))
    adjusted = adjusted_p_values([difference for *_, difference in found])
    lost = {audio.judging: lost_to_the_ear(database, text, audio) for kind, text, audio in pairs if kind == "ear"}
    return [Gap(*one, p_adjusted, lost.get(one[2].judging)) for one, p_adjusted in zip(found, adjusted, strict=True)]


def _hearing(cards: Sequence[JudgingCard]) -> Iterable[tuple[JudgingCard, JudgingCard]]:
    """(transcript input, audio input) of the same model."""
    newest: dict[tuple[object, ...], JudgingCard] = {}
    for card in cards:
        if card.target.startswith(CASCADE):
            continue
        newest.setdefault((*_circumstances(card), card.model_fingerprint, card.output_form, card.input_form), card)
    for (*rest, form), card in newest.items():
        control = newest.get((*rest, "transcript"))
        if form != "transcript" and control is not None:
            yield control, card


def _ears(cards: Sequence[JudgingCard]) -> Iterable[tuple[JudgingCard, JudgingCard]]:
    """(the set's transcripts, the ear's) of each cascade, the first of the newest of either way to ask its model."""
    written: dict[tuple[object, ...], JudgingCard] = {}
    heard: dict[tuple[object, ...], JudgingCard] = {}
    for card in cards:
        key = (*_circumstances(card), card.output_form, _silent_fingerprint(card))
        if card.input_form == "transcript":
            written.setdefault(key, card)
        elif card.target.startswith(CASCADE):
            heard.setdefault((*key, card.model_fingerprint, card.input_form), card)
    for key, card in heard.items():
        control = written.get(key[:-2])
        if control is not None:
            yield control, card


def _speaking(cards: Sequence[JudgingCard]) -> Iterable[tuple[JudgingCard, JudgingCard]]:
    """(text output, audio output) of models that are otherwise alike; each way of speaking is a gap of its own."""
    texts: dict[tuple[object, ...], JudgingCard] = {}
    speaking: dict[tuple[object, ...], JudgingCard] = {}
    for card in cards:
        key = (*_circumstances(card), _silent_fingerprint(card), card.input_form)
        if card.output_form == "audio":
            speaking.setdefault((*key, card.model_fingerprint), card)
        else:
            texts.setdefault(key, card)
    for key, card in speaking.items():
        text = texts.get(key[:-1])
        if text is not None:
            yield text, card


def _circumstances(card: JudgingCard) -> tuple[object, ...]:
    return card.dataset_id, card.judge_fingerprint, card.votes, card.method


def _silent_fingerprint(card: JudgingCard) -> str:
    """What makes two models of text the same: neither who hears for them counts, nor how they answer."""
    kept = {key: value for key, value in card.parameters.items() if key not in SPEECH_PARAMETERS | STAGES}
    return fingerprint([card.target.removeprefix(CASCADE), card.address, kept])
