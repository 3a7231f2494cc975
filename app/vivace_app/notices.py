"""What every page says when there is nothing to show, so that an empty board looks like a beginning."""

from __future__ import annotations

import streamlit as st


def nothing_yet() -> None:
    """Say how to fill an empty database."""
    st.info("There are no results yet. Fill the board with the bundled demo:", icon=":material/inbox:")
    st.code("vivace demo", language=None, wrap_lines=True)
    st.caption("It needs no key, no GPU and no network. Then reload this page.")
