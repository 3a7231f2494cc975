"""Figures and names as the screen shows them."""

from __future__ import annotations

import pandas as pd
import pytest

from vivace_app import figures
from vivace_app.explorer.recordings import media_type


def test_rates_are_percent_only_here() -> None:
    assert figures.with_interval(0.5833, 0.38, 0.76).strip() == "58.3 % [38–76]"
    assert figures.with_interval(1.0, None, None) == "100.0 %"
    assert figures.with_count(0.75, 6).strip() == "75 % (6)"
    assert figures.seconds(None) == figures.span(None, 0.5) == figures.ABSENT


def test_texts_of_a_column_sort_like_their_figures() -> None:
    values = [None, 0.0, 0.083, 0.0999, 0.583, 1.0]
    texts = [figures.with_interval(value, 0, 1) for value in values]
    assert sorted(texts) == texts
    assert sorted(counts := [figures.with_count(value, 3) for value in values]) == counts
    assert sorted(ranges := [figures.with_range(value, 0, 1) for value in values]) == ranges


def test_coverage_tells_the_possible_range_only_when_incomplete() -> None:
    assert figures.with_range(1.0, 0.5, 0.5) == "100.0 %"
    assert figures.with_range(0.95, 0.375, 0.5).strip() == "95.0 % (38–50)"
    assert figures.with_range(0.9999, 0.5, 0.51).strip() == "99.9 % (50–51)", "not complete, so not 100 %"


def test_names() -> None:
    assert figures.axis_name("INFERENCE_MEMORY") == "Inference Memory"
    assert figures.rank(1, True) == "1="
    assert figures.rank(12, False) == "12"
    assert figures.reason("rate_limit") == "rate limit"
    assert figures.reason(None) == "no reason recorded"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "`plain`"),
        ("<b>x</b>", "`<b>x</b>`"),
        ("a`b``c", "```a`b``c```"),
        ("`", "`` ` ``"),
        ("two\nlines", "`two lines`"),
        ("", f"`{figures.ABSENT}`"),
    ],
)
def test_text_from_outside_becomes_one_piece_of_code(text: str, expected: str) -> None:
    assert figures.literal(text) == expected


def test_long_text_from_outside_is_cut() -> None:
    assert len(figures.literal("x" * 500, limit=20)) == 22


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (b"RIFF....WAVE", "audio/wav"),
        (b"OggS", "audio/ogg"),
        (b"fLaC", "audio/flac"),
        (b"ID3\x04", "audio/mpeg"),
        (b"\x00\x00\x00\x20ftypM4A ", "audio/mp4"),
        (b"", "audio/wav"),
    ],
)
def test_recordings_are_known_by_their_first_bytes(start: bytes, expected: str) -> None:
    assert media_type(start) == expected


def test_the_benchmarks_axes_are_spelled_out_and_a_sets_own_stay_as_they_are_named() -> None:
    assert figures.axis_name("INFERENCE_MEMORY") == "Inference Memory"
    assert figures.axis_name("back_and FORTH") == "back_and FORTH"


def test_texts_from_outside_do_no_harm_in_a_downloaded_table() -> None:
    frame = pd.DataFrame(
        {"Model": ["=1+1", "a\x1b"], "Notes": [["@x"], []], "n": [1, 2], "Gap": ["+4.2 [+1.0, +7.9]", "–"]}
    )
    shown = figures.cells(frame)
    assert shown.to_dict("list") == {
        "Model": ["'=1+1", "a␛"], "Notes": [["'@x"], []], "n": [1, 2], "Gap": ["+4.2 [+1.0, +7.9]", "–"],
    }  # fmt: skip
    assert shown["n"].dtype == frame["n"].dtype
