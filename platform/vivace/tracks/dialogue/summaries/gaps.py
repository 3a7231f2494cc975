"""What hearing and speaking cost a model: which judgings are set side by side, and what lies between them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from vivace.machine.manifest import fingerprint
from vivace.statistics.paired import apr_difference, ars_difference
from vivace.store.tables import Gap, Run
from vivace.store.verdicts import JudgingCard, ended_conversations, standing_cards
from vivace.tracks.dialogue.summaries.misheard import lost_to_the_ear
from vivace.tracks.dialogue.summaries.pairs import paired

Kind = Literal["hearing", "ear", "speaking"]
CASCADE = "cascade:"
STAGES = frozenset({"ear"})
"""Parameters of a cascade that its model knows nothing of, beside those of speech."""
SPEECH_PARAMETERS = frozenset({"output", "modalities", "audio", "voice", "transcriber"})
"""Parameters that say how an answer is given, and nothing about the model that gives it."""


Pairing = tuple[Kind, JudgingCard, JudgingCard]
"""The kind of a gap, the judging of replies through text, and that of replies through audio."""


def pairings(cards: Iterable[JudgingCard]) -> list[Pairing]:
    """The judgings between which there are gaps; of several alike the newest whole one stands for all.

    A hearing gap is of the same model (fingerprint), data, judge, votes, method and way of answering. That of a
    cascade is its ear's: its model read the transcripts, as part of the cascade or by itself. A speaking gap is of
    models that differ in nothing but the way they were asked to answer. Recorded replies have no gaps: they are what
    they are, whatever is put to them.

    Args:
        cards: of judgings, the newest first.
    """
    live = sorted((card for card in cards if not card.recorded), key=lambda card: card.standing != "ranked")
    return [
        *(("hearing", text, audio) for text, audio in _hearing(live)),
        *(("ear", text, audio) for text, audio in _ears(live)),
        *(("speaking", text, audio) for text, audio in _speaking(live)),
    ]


def renew_gaps(session: Session, run_id: str | None = None) -> None:
    """Make the stored gaps those that boards show now, and compute what is new among them.

    It belongs into every transaction that changes which judgings stand on boards, or what one of them says.

    Args:
        session: of the store.
        run_id: a run whose replies or verdicts may say something else than before; None where none does.
    """
    cards = standing_cards(session)
    wanted = {(text.judging, audio.judging): (kind, text, audio)
              for seen in _views(session, cards) for kind, text, audio in pairings(seen)}  # fmt: skip
    for key in session.execute(select(Gap.text_id, Gap.audio_id).distinct()).all():
        pair = wanted.get((key.text_id, key.audio_id))
        if pair is not None and run_id not in (pair[1].run, pair[2].run):
            del wanted[key.text_id, key.audio_id]
        else:
            session.execute(delete(Gap).where(Gap.text_id == key.text_id, Gap.audio_id == key.audio_id))
    for kind, text, audio in wanted.values():
        session.add_all(Gap(**row) for row in _rows(session, kind, text, audio))
    session.flush()


def _views(session: Session, cards: Sequence[JudgingCard]) -> Iterator[Sequence[JudgingCard]]:
    """What different people see, for whom different judgings are the newest: the operator, anybody, each owner."""
    yield cards
    query = select(Run.id, Run.owner).where(Run.private_since.is_not(None))
    private = {row.id: row.owner for row in session.execute(query)}
    if any(card.run in private for card in cards):
        for viewer in {None, *private.values()}:
            yield [card for card in cards if card.run not in private or private[card.run] == viewer is not None]


def _rows(session: Session, kind: Kind, text: JudgingCard, audio: JudgingCard) -> Iterator[dict[str, Any]]:
    """APR's and ARS' difference, paired as in a comparison, where there is one."""
    matched = paired(ended_conversations(session, text.judging), ended_conversations(session, audio.judging))
    ear = lost_to_the_ear(session, text, audio).as_json() if kind == "ear" and matched else None
    for metric, function in (("apr", apr_difference), ("ars", ars_difference)):
        difference = function(matched)
        if difference is not None:
            yield {"text_id": text.judging, "audio_id": audio.judging, "kind": kind, "metric": metric, "ear": ear,
                   **vars(difference)}  # fmt: skip


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
