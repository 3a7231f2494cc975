"""What the systems replied to the conversation's last turn, side by side."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from vivace.output.printable import printable
from vivace.store.queries.conversation import ConversationView
from vivace_app import figures, markup
from vivace_app.explorer import turns
from vivace_app.explorer.sides import Side, places
from vivace_app.viewer import told


def show(sides: Sequence[Side], views: Sequence[ConversationView | None]) -> None:
    """Draw each system's reply, or why there is none."""
    st.subheader("Reply" if len(sides) == 1 else "Replies", anchor=False)
    for place, side, view in zip(places(len(sides)), sides, views, strict=True):
        with place, st.container(border=True, height="stretch"):
            _show_reply(side, view, title=f"**{side.letter}** · " if len(sides) > 1 else "")


def _show_reply(side: Side, view: ConversationView | None, *, title: str) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(title + figures.literal(side.name), width="content")
        if view is not None:
            _show_result(view)
    if view is None:
        st.text("This conversation was not part of this run.")
        return
    if view.reply_unscored_reason is not None:
        st.text(f"There is no reply: {figures.reason(view.reply_unscored_reason)}.")
        if view.reply_detail:
            markup.show(told(view.reply_detail), "the reason")
    elif view.reply is not None:
        markup.show(view.reply or "(empty reply)", "the reply")
    if view.reply_raw_text is not None:
        with st.expander("With what it thought before"):
            st.text(printable(view.reply_raw_text))
    if view.reply_audio_sha256 is not None:
        turns.play(view.reply_audio_sha256, f"Spoken reply of {side.letter}")
    if view.ttft_s is not None or view.total_s is not None:
        whose = ", as submitted with the reply" if view.times == "submitted" else ""
        st.caption(f"TTFT {figures.seconds(view.ttft_s)} · total {figures.seconds(view.total_s)}{whose}")


def _show_result(view: ConversationView) -> None:
    met = [verdict.met for verdict in view.verdicts]
    if False not in met and None in met:
        st.badge("unscored", icon=":material/question_mark:", color="gray")
    elif all(met):
        st.badge("pass", icon=":material/check:", color="green")
    else:
        st.badge("fail", icon=":material/close:", color="red")
    st.caption(f"{met.count(True)} of {len(met)} criteria met", width="content")
