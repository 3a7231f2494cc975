"""What hearing and speaking cost a model: the same model once through text and once through audio, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from vivace.analysis.comparison import adjusted_p_values
from vivace.statistics.paired import Difference
from vivace.store.database import Database
from vivace.store.tables import Gap as StoredGap
from vivace.store.verdicts import JudgingCard, standing_cards
from vivace.tracks.dialogue.summaries.gaps import Kind, pairings
from vivace.tracks.dialogue.summaries.misheard import LostToTheEar


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
            **({} if self.ear is None else self.ear.as_json()),
        }


def _form(kind: Kind, card: JudgingCard) -> str:
    return card.output_form if kind == "speaking" else card.input_form


def gaps(database: Database) -> list[Gap]:
    """Every gap that the recorded judgings show, as it was computed when the later of the two ended.

    Which judgings are set side by side is `pairings`' rule. Differences are paired, as in a comparison, and all
    p-values are one family.
    """
    with database.read() as session:
        stored = {(row.text_id, row.audio_id, row.metric): row for row in session.scalars(select(StoredGap))}
        pairs = pairings(standing_cards(session))
    found = [
        (kind, text, audio, metric, row)
        for kind, text, audio in pairs
        for metric in ("apr", "ars")
        if (row := stored.get((text.judging, audio.judging, metric))) is not None
    ]
    differences = [Difference(**{name: getattr(row, name) for name in Difference.__dataclass_fields__})
                   for *_, row in found]  # fmt: skip
    return [
        Gap(kind, text, audio, metric, difference, adjusted,
            None if row.ear is None else LostToTheEar.from_json(row.ear))
        for (kind, text, audio, metric, row), difference, adjusted
        in zip(found, differences, adjusted_p_values(differences), strict=True)
    ]  # fmt: skip
