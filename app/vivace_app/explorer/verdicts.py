"""How the replies were judged: a grid of criteria and systems, and the judge's reasons with its single votes."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from vivace.store.database import Database
from vivace.store.queries.conversation import ConversationView, VerdictView, VoteView
from vivace_app import downloads, figures, markup
from vivace_app.address import Address, toggle
from vivace_app.explorer import people
from vivace_app.explorer.sides import Side, places

_WORDS = {True: "✓ met", False: "✗ not met", None: "? unscored"}
_WORDING = 'style="font-weight:normal;overflow-wrap:anywhere"'
_CELL = 'style="text-align:left;vertical-align:top;padding:0.3rem 0.6rem;border-bottom:1px solid #8884"'
_LABEL_CHARACTERS = 160
"""Of a criterion in the grid; the whole stands below it."""


def show(
    address: Address, database: Database, sides: Sequence[Side], views: Sequence[ConversationView | None]
) -> None:
    """Draw the verdicts on each criterion, and what people say of it."""
    st.subheader("Criteria", anchor=False)
    people.show_agreement(database, sides, views)
    first = next(view for view in views if view is not None)
    criteria = range(len(first.verdicts))
    lines = [[_verdict(view, place) for view in views] for place in criteria]
    chosen = list(criteria)
    if len(sides) > 1:
        only = toggle(
            address, "only", "Only criteria on which they differ", explanation="Those with unlike verdicts."
        )
        chosen = [place for place in criteria if not only or len({_met(one) for one in lines[place]}) > 1]
        if not chosen:
            st.info("On no criterion of this conversation do they differ.", icon=":material/filter_alt_off:")
            return
        st.html(grid(sides, [first.verdicts[place] for place in chosen], [lines[place] for place in chosen]))
    for place in chosen:
        with st.container(border=True):
            markup.show(f"{place + 1}. {first.verdicts[place].text}", "the criterion")
            for where, side, verdict in zip(places(len(sides)), sides, lines[place], strict=True):
                with where:
                    _show_verdict(verdict, f"**{side.letter}**" if len(sides) > 1 else "")
    downloads.offer("verdicts", table(sides, first.verdicts, lines))


def _verdict(view: ConversationView | None, place: int) -> VerdictView | None:
    return view.verdicts[place] if view is not None and place < len(view.verdicts) else None


def _met(verdict: VerdictView | None) -> str:
    return figures.ABSENT if verdict is None else _WORDS[verdict.met]


def grid(
    sides: Sequence[Side], criteria: Sequence[VerdictView], lines: Sequence[Sequence[VerdictView | None]]
) -> str:
    """Criteria and systems as a table in HTML; every text from outside in it is escaped."""
    heads = "".join(
        f'<th scope="col" {_CELL}>{side.letter}<br><small>{markup.escaped(side.name[:60])}</small></th>'
        for side in sides
    )
    rows = "".join(
        f'<tr><th scope="row" {_CELL}><span {_WORDING}>{criterion.number + 1}. '
        f"{markup.escaped(_shortened(criterion.text))}</span></th>"
        + "".join(f"<td {_CELL}>{_cell(verdict)}</td>" for verdict in line)
        + "</tr>"
        for criterion, line in zip(criteria, lines, strict=True)
    )
    return (
        '<div role="region" aria-label="Verdicts by criterion and system" tabindex="0" style="overflow-x:auto">'
        '<table style="border-collapse:collapse;width:100%">'
        f'<thead><tr><th scope="col" {_CELL}>Criterion</th>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _shortened(text: str) -> str:
    return text if len(text) <= _LABEL_CHARACTERS else text[: _LABEL_CHARACTERS - 1] + "…"


def _cell(verdict: VerdictView | None) -> str:
    words = f'<span style="white-space:nowrap">{_met(verdict)}</span>'
    if verdict is not None and verdict.votes:
        words += f"<br><small>votes {_signs(verdict.votes)}</small>"
    if verdict is not None and verdict.labels:
        words += f"<br><small>people {people.signs(verdict.labels)}</small>"
    return words


def _signs(votes: Sequence[VoteView]) -> str:
    return " ".join(_WORDS[vote.met][0] for vote in votes)


def _show_verdict(verdict: VerdictView | None, title: str) -> None:
    if verdict is None:
        st.markdown(f"{title} {figures.ABSENT}")
        return
    with st.container(horizontal=True):
        if title:
            st.markdown(title, width="content")
        if verdict.met is None:
            st.badge("unscored", icon=":material/question_mark:", color="gray")
        elif verdict.met:
            st.badge("met", icon=":material/check:", color="green")
        else:
            st.badge("not met", icon=":material/close:", color="red")
        if verdict.votes:
            met = [vote.met for vote in verdict.votes]
            st.caption(f"{met.count(True)} of {len(met)} votes for met", width="content")
    if verdict.met is None:
        st.text(f"Reason: {figures.reason(verdict.unscored_reason)}.")
    if verdict.explanation:
        markup.show(verdict.explanation, "the judge's reason")
    people.show(verdict)
    if verdict.votes:
        with st.expander("Single votes"):
            for number, vote in enumerate(verdict.votes, start=1):
                why = vote.explanation or (figures.reason(vote.unscored_reason) if vote.met is None else "")
                markup.show(f"{number}. {_WORDS[vote.met]}" + (f": {why}" if why else ""), "the vote")


def table(
    sides: Sequence[Side], criteria: Sequence[VerdictView], lines: Sequence[Sequence[VerdictView | None]]
) -> pd.DataFrame:
    """Every verdict with its reason and votes, one line each, to take away."""
    return pd.DataFrame(
        [
            {
                "Criterion": criterion.number + 1,
                "Text": criterion.text,
                "System": side.name,
                "Judging": side.row.judging,
                "Met": verdict.met,
                "Unscored": verdict.unscored_reason,
                "Reason": verdict.explanation,
                "Votes": _signs(verdict.votes),
                "People": people.words(verdict.labels) or None,
            }
            for criterion, line in zip(criteria, lines, strict=True)
            for side, verdict in zip(sides, line, strict=True)
            if verdict is not None
        ]
    )
