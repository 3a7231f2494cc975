"""The page that says how numbers are made: nothing in it is made up, missing or for programmers alone."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

from streamlit.testing.v1 import AppTest

from vivace.analysis.definitions import chapters


def _methodology_page() -> None:
    from vivace_app.views import methodology

    methodology.show()


def test_every_definition_is_at_the_code_that_makes_the_number() -> None:
    definitions = [one for chapter in chapters() for one in chapter.definitions]
    assert len({one.name for one in definitions}) == len(definitions)
    for one in definitions:
        assert len(one.by_the_code) > 40, f"{one.made_by} says too little"
        assert "Args:" not in one.by_the_code and "Raises:" not in one.by_the_code


def test_every_score_of_a_comparison_and_a_board_is_explained() -> None:
    """Whoever adds a public statistic of paired scores has to say here what it is."""
    source = importlib.util.find_spec("vivace.statistics.paired")
    assert source is not None and source.origin is not None
    tree = ast.parse(Path(source.origin).read_text(encoding="utf-8"))
    public = {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")}
    explained = {one.made_by.partition(":")[2] for chapter in chapters() for one in chapter.definitions}
    parts = {"rate_difference", "mean_difference", "exact_flips", "exact_mcnemar"}  # of those that are explained
    planning = {"conversations_needed", "repeats_needed"}  # on no page
    assert public - explained == parts | planning


def test_the_page_needs_no_database(home: Path) -> None:
    app = AppTest.from_function(_methodology_page, default_timeout=300).run()
    assert not app.exception and not home.exists()
    assert [one.value for one in app.subheader] == [chapter.title for chapter in chapters()]
    told = "\n".join(element.value for element in app.markdown)
    assert "at least 99% of it scored" in told
    assert "Wilson score interval" in "\n".join(element.value for element in app.text)
