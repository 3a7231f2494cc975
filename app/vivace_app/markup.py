"""Text from outside on a page: printable, never interpreted, and long ones folded away."""

from __future__ import annotations

import html

import streamlit as st

from vivace.output.printable import printable

_SHOWN = 4_000
"""Characters of a text that are read without asking for the rest."""


def escaped(text: str) -> str:
    """Text to stand inside HTML of our own as what it is, control and direction marks as pictures of themselves."""
    return html.escape(printable(text))


def show(text: str, whose: str = "it") -> None:
    """Draw text from outside, of a very long one the beginning, with the whole below it on demand.

    Args:
        text: what a model, a person or a server wrote.
        whose: what it is, for the heading of what is folded away.
    """
    if len(text) <= _SHOWN:
        st.text(printable(text))
        return
    st.text(printable(text[:_SHOWN]) + " …")
    with st.expander(f"All {len(text):,} characters of {whose}"):
        st.text(printable(text))
