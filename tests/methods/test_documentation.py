"""What a method's docstring says of it and of its settings is what a person is shown."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from vivace_methods.documentation import documentation_of


@dataclass(frozen=True)
class Budgeted:
    """Whatever has a budget.

    Attributes:
        budget: how much of it there is: at least 1,
            and at most all.
    """

    budget: int = 8


@dataclass(frozen=True)
class Example(Budgeted):
    """Does something, over
    two lines.

    A second paragraph, of
    two lines as well.

    Attributes:
        rule: by which it does so.

    A last one.
    """

    rule: str = ""
    silent: bool = False


def test_settings_are_explained_by_the_class_that_they_come_from() -> None:
    said = documentation_of(Example)
    assert said.summary == "Does something, over two lines."
    assert said.paragraphs == ("A second paragraph, of two lines as well.", "A last one.")
    assert [(each.name, each.default, each.kind, each.meaning) for each in said.settings] == [
        ("budget", 8, "an integer", "how much of it there is: at least 1, and at most all."),
        ("rule", "", "text", "by which it does so."),
        ("silent", False, "true or false", ""),
    ]


def test_every_setting_of_every_method_is_explained() -> None:
    pytest.importorskip("torch")
    from vivace_methods.registry import METHODS

    for name, kind in METHODS.items():
        unexplained = [each.name for each in documentation_of(kind).settings if not each.meaning]
        assert not unexplained, f"{name} says nothing of {unexplained}"
