"""What pages give away of their tables and plots, as files that other programs read."""

from __future__ import annotations

import io
import json
from datetime import date
from typing import Any

import altair as alt
import pandas as pd
import pytest
import vl_convert
from streamlit.testing.v1 import AppTest

from vivace_app import downloads

TABLE = pd.DataFrame(
    {
        "Model": ["=HYPERLINK(1)", "<script>alert(1)</script>"],
        "Notes": [["part", "cascade"], []],
        "TTFT": [0.25, None],
        "Date": [date(2026, 3, 1), date(2026, 3, 2)],
        "APR": ["  58.3 % [38–76]", "     –"],
    }
)
PLOT = alt.Chart(pd.DataFrame({"x": [1.0, 2.0], "name": ["a", "<script>b</script>"]})).mark_point().encode(
    x="x:Q", y="name:N"
)  # fmt: skip


def test_a_name_that_xml_has_no_word_for_does_not_end_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = vl_convert.vegalite_to_svg
    hostile = alt.Chart(pd.DataFrame({"x": [1.0, 2.0], "name": ["a\x07\x1b[31m\x00\ufffe\uffff", "b"]}))

    def guarded(spec: dict[str, Any], **settings: Any) -> str:
        told = json.dumps(spec)
        assert not any(code in told for code in ("u0000", "u0007", "u001b", "ufffe", "uffff")), "it would abort here"
        return draw(spec, **settings)

    monkeypatch.setattr(vl_convert, "vegalite_to_svg", guarded)
    assert "a␇␛[31m" in downloads.svg(hostile.mark_point().encode(x="x:Q", y="name:N")).decode()


def test_a_csv_file_computes_nothing_and_leaves_out_what_is_not_known() -> None:
    lines = downloads.csv(TABLE).decode().splitlines()
    assert lines[0] == "Model,Notes,TTFT,Date,APR"
    assert lines[1] == "'=HYPERLINK(1),part; cascade,0.25,2026-03-01,58.3 % [38–76]"
    assert lines[2] == "<script>alert(1)</script>,,,2026-03-02,–"


def test_a_parquet_file_has_texts_and_numbers_as_they_are() -> None:
    read = pd.read_parquet(io.BytesIO(downloads.parquet(TABLE)))
    assert list(read["Model"]) == list(TABLE["Model"])
    assert read["TTFT"].tolist()[0] == 0.25 and read["TTFT"].isna().tolist() == [False, True]
    assert list(read["Notes"][0]) == ["part", "cascade"]


def test_a_plot_is_drawn_without_a_browser_and_its_texts_stay_texts() -> None:
    drawn = downloads.svg(PLOT).decode()
    assert drawn.startswith("<svg") and "&lt;script" in drawn and "<script" not in drawn
    assert downloads.png(PLOT).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("name", "file"), [("Board of demo@1", "vivace-board-of-demo-1"), ("../../..", "vivace-table")]
)
def test_names_of_files(name: str, file: str) -> None:
    assert downloads.file_name(name) == file


def _page() -> None:
    import pandas as pd

    from vivace_app import downloads

    downloads.offer("first", pd.DataFrame({"a": [1]}))
    downloads.offer("nothing", pd.DataFrame())


def test_a_page_offers_the_files_of_what_it_shows() -> None:
    app = AppTest.from_function(_page, default_timeout=300).run()
    assert not app.exception
    assert [button.label for button in app.get("download_button")] == ["Table as CSV", "Table as Parquet"]
