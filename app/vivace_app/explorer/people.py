"""What people say of the same replies beside what the judge says, and how far the two agree."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from vivace.analysis.human_labels import majority_of
from vivace.store.database import Database
from vivace.store.queries.conversation import ConversationView, LabelView, VerdictView
from vivace_app import data, figures, markup
from vivace_app.explorer.sides import Side

WORDS = {True: "✓ met", False: "✗ not met", None: "? no answer"}


def show_agreement(database: Database, sides: Sequence[Side], views: Sequence[ConversationView | None]) -> None:
    """Draw how each judging agrees with all that people have labelled, where this conversation is among it."""
    for side, view in zip(sides, views, strict=True):
        if view is None or not any(verdict.labels for verdict in view.verdicts):
            continue
        said = data.agreement(database, side.row.judging)
        if not said.confusion.n:
            continue
        many = "conversation" if said.conversations == 1 else "conversations"
        same = said.confusion.both + said.confusion.neither
        whose = f"{side.letter}: the judge" if len(sides) > 1 else "The judge"
        st.caption(
            f"{whose} says what most people say on {same} of {said.confusion.n} criteria in {said.conversations} "
            f"labelled {many}: {_figure(said.accuracy.value, said.accuracy.low, said.accuracy.high)}, "
            f"Cohen's κ {_figure(said.kappa.value, said.kappa.low, said.kappa.high)}."
        )


def _figure(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return figures.ABSENT
    return f"{value:.2f}" if low is None or high is None else f"{value:.2f} [{low:.2f}, {high:.2f}]"


def show(verdict: VerdictView) -> None:
    """Draw what each person says of one criterion, and whether the verdict is what most of them say."""
    if verdict.labels:
        markup.show(f"People: {words(verdict.labels)}. {_beside(verdict)}", "what people say")


def words(labels: Sequence[LabelView]) -> str:
    """Each person with their answer."""
    return ", ".join(f"{label.labeler} {WORDS[label.met]}" for label in labels)


def signs(labels: Sequence[LabelView]) -> str:
    """The answers alone."""
    return " ".join(WORDS[label.met][0] for label in labels)


def _beside(verdict: VerdictView) -> str:
    most = majority_of([label.met for label in verdict.labels])
    if most is None:
        return "They do not say one thing." if any(label.met is not None for label in verdict.labels) else ""
    if verdict.met is None:
        return "The judge has not answered."
    return "The judge agrees." if verdict.met is most else "The judge says otherwise."
