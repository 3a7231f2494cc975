"""The leaderboard's entry point, started by `vivace serve`: the frame around the pages, and nothing else."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

import streamlit as st

from vivace_app import notices, viewer, views

# A file of our own: Streamlit fetches its named icons for the browser's tab from another server.
_ICON = str(Path(__file__).with_name("icon.svg"))

# Wide tables need the room that Streamlit leaves at both sides; its captions are too faint to be read by everybody
# (WCAG 2.2, 1.4.3); and a chart that is wider than a telephone scrolls by itself, not with the page.
_STYLE = """
[data-testid=stMainBlockContainer] {padding: 4rem 1.25rem}
[data-testid=stCaptionContainer] {color: inherit; opacity: 0.8}
[data-testid=stVegaLiteChart] {max-width: 100%; overflow-x: auto}
"""


def main() -> None:
    """Register the pages, and show the one that the URL names."""
    st.set_page_config(page_title="Vivace", page_icon=_ICON, layout="wide")
    st.html(f"<style>{_STYLE}</style>")
    page = st.navigation(pages(), position="top")
    viewer.show_login()
    with notices.what_went_wrong():
        page.run()


def pages() -> list[st.Page]:
    """The page of each file in `views`, in the order of their positions."""
    names = [found.name for found in pkgutil.iter_modules(views.__path__, f"{views.__name__}.")]
    modules = sorted(map(importlib.import_module, names), key=lambda module: int(module.POSITION))
    return [module.page() for module in modules]


if __name__ == "__main__":
    main()
