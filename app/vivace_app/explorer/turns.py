"""What was said: every turn with its recording and its shape, its transcript, and what the ear of a cascade heard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import streamlit as st

from vivace.statistics.word_errors import passages
from vivace.store.queries.conversation import TurnView
from vivace.store.queries.heard import HeardView
from vivace_app import data, figures, markup
from vivace_app.explorer import recordings
from vivace_app.viewer import told

_BARS = 160
_STEP = 4
_HEIGHT = 36
_MARKED_CHARACTERS = 20_000
"""Longer transcripts are not compared word by word: that takes time with their square."""


def show(turns: Sequence[TurnView], heard: Mapping[str, Mapping[int, HeardView]]) -> None:
    """Draw the turns.

    Args:
        turns: of the conversation.
        heard: who heard, empty where there is one system → user turn → what its ear made of it.
    """
    marked = False
    for turn in turns:
        with st.chat_message("user" if turn.role == "user" else "assistant"):
            if turn.audio_sha256 is not None:
                play(turn.audio_sha256, f"Recording of turn {turn.number}")
            markup.show(turn.transcript or "(no transcript)", f"turn {turn.number}")
        for whose, ears in heard.items():
            if turn.role == "user" and turn.number in ears:
                _show_heard(ears[turn.number], f"{whose}: " if whose else "")
                marked = True
    if marked:
        st.caption("Struck out is what was said and not heard; underlined is what was heard in its place.")


def play(sha256: str, what: str) -> None:
    """Draw a player with the shape of its recording, or say why there is none."""
    recording = data.audio(sha256)
    if isinstance(recording, str):
        st.caption(":material/volume_off: The recording cannot be played.")
        st.text(told(recording))
        return
    shape = data.shape(sha256, _BARS)
    if shape is not None:
        peaks, seconds = shape
        st.image(drawing(peaks), width="stretch", alt=f"{what}, {seconds:.1f} seconds, as a waveform")
    st.audio(recording, format=recordings.media_type(recording), alt=what)


def drawing(peaks: Sequence[float]) -> str:
    """A waveform as SVG, in a grey that is read on light and on dark.

    Args:
        peaks: the loudest sample of each part, from 0 to 1.
    """
    middle = _HEIGHT / 2
    reach = max(peaks, default=0.0) or 1.0
    halves = [max(0.6, (middle - 1) * peak / reach) for peak in peaks]
    path = "".join(
        f"M{_STEP * place + _STEP // 2} {middle - half:.1f}V{middle + half:.1f}" for place, half in enumerate(halves)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_STEP * len(halves)} {_HEIGHT}">'
        f'<path d="{path}" stroke="#7a7a7a" stroke-width="2.4" fill="none"/></svg>'
    )


def _show_heard(heard: HeardView, by: str) -> None:
    """What a cascade's ear made of a turn, and what that took."""
    wrong = "" if heard.errors is None else f"{heard.errors} of {heard.words} words wrong, "
    cost = f", ${heard.cost_usd:.4f}" if heard.cost_usd else ""
    st.caption(f":material/hearing: {by}heard in {figures.seconds(heard.seconds)}{cost}; {wrong}as follows")
    if heard.text is None:
        markup.show(told(f"(nothing: {heard.detail or figures.reason(heard.unscored)})"), "the reason")
    elif heard.said is None or max(len(heard.said), len(heard.text)) > _MARKED_CHARACTERS:
        markup.show(heard.text, "what was heard")
    else:
        st.html(marked(heard.said, heard.text))


def marked(said: str, heard: str) -> str:
    """What was heard, as HTML: words that came out wrong are underlined, and before them those said struck out."""
    parts = []
    for passage in passages(said, heard):
        if not passage.wrong:
            parts.append(markup.escaped(passage.heard))
            continue
        if passage.said:
            parts.append(f"<del>{markup.escaped(passage.said)}</del>")
        if passage.heard:
            parts.append(f"<ins><strong>{markup.escaped(passage.heard)}</strong></ins>")
    return f'<p style="overflow-wrap:anywhere">{" ".join(parts)}</p>'
