"""Published figures stand beside own runs, marked, and never among them."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.program import board
from vivace.analysis.published import published_figures


def test_published_figures_agree_with_themselves() -> None:
    figures = published_figures("audio-multichallenge")
    assert len(figures) > 25
    assert [figure.apr for figure in figures] == sorted((figure.apr for figure in figures), reverse=True)
    n = {"INFERENCE_MEMORY": 132, "INSTRUCTION_RETENTION": 120, "SELF_COHERENCE": 83, "VOICE_EDITING": 117}
    with_axes = [figure for figure in figures if figure.axes]
    assert len(with_axes) == 2
    for figure in with_axes:
        # Micro-averaging: the axes' passes add up to the whole's, which a mistyped figure would not.
        passes = sum(round(rate * n[axis]) for axis, rate in figure.axes.items())
        assert passes / 452 == pytest.approx(figure.apr, abs=5e-5)


def test_they_are_shown_only_when_asked_for(tmp_path: Path) -> None:
    assert board("audio-multichallenge", "--home", tmp_path) == []
    rows = board("audio-multichallenge", "--published", "--home", tmp_path)
    assert all(row["published"] and row["note"] == "published, not run here" for row in rows)
    assert not any("rank" in row for row in rows)
