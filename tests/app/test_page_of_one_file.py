"""A page is one file in the folder of views, and nothing else is to be changed."""

from __future__ import annotations

import importlib.resources
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

PAGE = '''"""What a newcomer adds."""

import streamlit as st

POSITION = 5


def page():
    return st.Page(show, title="Newcomer", url_path="newcomer")


def show():
    st.title("A page of one file")
'''


def _newcomer() -> None:
    from vivace_app.main import pages

    titles = [page.title for page in pages()]
    assert titles[:2] == ["Newcomer", "Leaderboard"], titles
    importlib = __import__("importlib")
    importlib.import_module("vivace_app.views.newcomer").show()


def test_a_file_in_the_folder_of_views_is_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vivace_app import views

    (tmp_path / "newcomer.py").write_text(PAGE)
    monkeypatch.setattr(views, "__path__", [*views.__path__, str(tmp_path)])
    app = AppTest.from_function(_newcomer, default_timeout=300).run()
    assert not app.exception and app.title[0].value == "A page of one file"
    whole = AppTest.from_file(str(importlib.resources.files("vivace_app") / "main.py"), default_timeout=300).run()
    assert not whole.exception and whole.title[0].value == "Vivace leaderboard", "the first page is still the board"
