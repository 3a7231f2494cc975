"""For builds of a step or two."""

from __future__ import annotations

import pytest


@pytest.fixture
def few_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """A vocabulary of few samples: to read all of them takes longer than to train for two steps."""
    monkeypatch.setattr("vivace.zoo.training.rows._VOCABULARY_SAMPLES", 100)
