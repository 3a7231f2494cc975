"""How each number is made, in plain words, with what the code itself says of it."""

from __future__ import annotations

import streamlit as st

from vivace.analysis.definitions import Chapter, chapters

POSITION = 90
"""Among the pages, from the left."""


def page() -> st.Page:
    """Where this page lives."""
    return st.Page(show, title="Methodology", icon=":material/menu_book:", url_path="methodology")


def show() -> None:
    """Draw the page."""
    st.title("Methodology", anchor=False)
    st.caption(
        "How each number on these pages is made. What stands under *In the code's own words* is read from the "
        "code that makes it."
    )
    for chapter in chapters():
        _show(chapter)


def _show(chapter: Chapter) -> None:
    st.subheader(chapter.title, anchor=chapter.title.lower().replace(" ", "-"))
    st.markdown(chapter.about)
    for definition in chapter.definitions:
        st.markdown(f"**{definition.name}.** {definition.words}")
    with st.expander(f"{chapter.title}, in the code's own words", icon=":material/code:"):
        for definition in chapter.definitions:
            st.markdown(f"**{definition.name}** · `{definition.made_by.replace(':', '.')}`")
            st.text(definition.by_the_code)
