"""Which criteria a cascade lost to its ear: met with the set's transcripts, and not with what the ear heard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from vivace.statistics.word_errors import WordErrors, misheard, normalised
from vivace.store.queries.heard import HeardView, criterion_texts, heard_by
from vivace.store.verdicts import JudgedConversation, JudgingCard, ended_conversations

SHORTEST_WORD = 5
"""Characters of a word by which a criterion is taken to speak of what was misheard; shorter ones stand everywhere."""


@dataclass(frozen=True)
class MisheardWords:
    """Words of a user turn that came out as others; empty is what was left out or put in."""

    turn: int
    said: str
    heard: str


@dataclass(frozen=True)
class FallenCriterion:
    """A criterion that was met less often with the ear's transcripts than with the set's.

    Attributes:
        conversation: the dataset's id.
        axis: of the conversation.
        criterion: its place in the rubric, from 0.
        text: in words.
        met_text, met_audio: the share of the replies that met it, of those with a verdict.
        misheard: the words of that conversation that its ear got wrong, those of which the criterion speaks first.
    """

    conversation: str
    axis: str
    criterion: int
    text: str
    met_text: float
    met_audio: float
    misheard: tuple[MisheardWords, ...]

    def as_json(self) -> dict[str, Any]:
        """The criterion, with its words as plain values."""
        return {**vars(self), "misheard": [vars(words) for words in self.misheard]}

    @staticmethod
    def from_json(told: Mapping[str, Any]) -> FallenCriterion:
        """The criterion that `as_json` told."""
        return FallenCriterion(**{**told, "misheard": tuple(MisheardWords(**words) for words in told["misheard"])})


@dataclass(frozen=True)
class LostToTheEar:
    """What lies between a cascade's run on transcripts and its run on recordings.

    Attributes:
        word_error_rate: of its ear; None where nothing was heard.
        fell: the criteria, in the dataset's order.
    """

    word_error_rate: float | None
    fell: tuple[FallenCriterion, ...]

    def as_json(self) -> dict[str, Any]:
        """Both as plain values."""
        return {"word_error_rate": self.word_error_rate, "fell": [one.as_json() for one in self.fell]}

    @staticmethod
    def from_json(told: Mapping[str, Any]) -> LostToTheEar:
        """What `as_json` told."""
        return LostToTheEar(told["word_error_rate"], tuple(map(FallenCriterion.from_json, told["fell"])))


def lost_to_the_ear(session: Session, text: JudgingCard, audio: JudgingCard) -> LostToTheEar:
    """Set the criteria of two judgings side by side, with what was misheard in the second one's run.

    Args:
        session: of the store.
        text: the judging of replies to the set's transcripts.
        audio: the judging of replies to what the ear heard.
    """
    heard = heard_by(session, audio.run)
    texts = criterion_texts(session, audio.dataset_id)
    read = {one.id: one for one in ended_conversations(session, text.judging)}
    fell = [
        criterion
        for one in ended_conversations(session, audio.judging)
        if one.id in read
        for criterion in _fallen(read[one.id], one, heard.get(one.id, []), texts)
    ]
    turns = [turn for replies in heard.values() for reply in replies for turn in reply]
    errors = sum((WordErrors(turn.errors or 0, turn.words or 0) for turn in turns), WordErrors())
    return LostToTheEar(errors.rate, tuple(fell))


def _fallen(
    read: JudgedConversation,
    answered: JudgedConversation,
    heard: list[list[HeardView]],
    texts: Mapping[tuple[str, int], str],
) -> Iterator[FallenCriterion]:
    wrong: tuple[MisheardWords, ...] | None = None
    for number in answered.replies[0]:
        before, after = _share(read, number), _share(answered, number)
        if before is None or after is None or before <= after:
            continue
        wrong = tuple(dict.fromkeys(_misheard(heard))) if wrong is None else wrong
        text = texts.get((answered.id, number), "")
        named = {word for word in normalised(text).split() if len(word) >= SHORTEST_WORD}
        ordered = tuple(sorted(wrong, key=lambda words: named.isdisjoint(words.said.split())))
        yield FallenCriterion(answered.id, answered.axis, number, text, before, after, ordered)


def _share(conversation: JudgedConversation, number: int) -> float | None:
    verdicts = [met for reply in conversation.replies if (met := reply.get(number)) is not None]
    return sum(verdicts) / len(verdicts) if verdicts else None


def _misheard(replies: list[list[HeardView]]) -> Iterator[MisheardWords]:
    """The words of all turns that came out as others, those that several replies misheard alike again and again."""
    for reply in replies:
        for turn in reply:
            for said, heard in misheard(turn.said or "", turn.text or "") if turn.text else ():
                yield MisheardWords(turn.number, said, heard)
