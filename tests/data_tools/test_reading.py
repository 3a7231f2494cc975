"""Rows of JSON are read alike wherever they are given, however they were saved."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.datasets import conversation_rows
from vivace.errors import UsageError
from vivace.files.text import json_rows, read_yaml
from vivace.models.adapters.replay import read_replies
from vivace.tasks.registry import parse_task
from vivace.tracks.dialogue.data.readers import open_conversations
from vivace.tracks.dialogue.data.validation import validate

Rows = list[dict[str, Any]]

SAVED: dict[str, Callable[[Rows], bytes]] = {
    "lines": lambda rows: "\n".join(map(json.dumps, rows)).encode(),
    "lines with a mark": lambda rows: codecs.BOM_UTF8 + "\r\n".join(map(json.dumps, rows)).encode(),
    "lines in UTF-16": lambda rows: "\n".join(map(json.dumps, rows)).encode("utf-16"),
    "a list": lambda rows: json.dumps(rows).encode(),
    "a list over many lines": lambda rows: codecs.BOM_UTF8 + json.dumps(rows, indent=2).encode(),
}


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "ROWS.JSON"])
@pytest.mark.parametrize("form", SAVED)
def test_every_form_is_read_by_every_reader(form: str, name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    conversations = conversation_rows(2, audio=False)
    file.write_bytes(SAVED[form](conversations))
    assert [one.id for one in open_conversations(str(file)).conversations] == ["conversation0000", "conversation0001"]
    assert not [one for one in validate(str(file), lambda *_: None).findings if one.kind != "no audio"]
    file.write_bytes(SAVED[form]([{"id": "a", "response": "ü"}, {"id": "b", "response": None}]))
    assert read_replies(file)["a"]["response"] == "ü"
    file.write_bytes(SAVED[form]([{"question": f"{n}?", "answer": f"#### {n}"} for n in range(2)]))
    assert len(parse_task(f"gsm8k(path={file})").samples(None, 0)) == 2


def test_one_object_over_several_lines_is_one_row(tmp_path: Path) -> None:
    file = tmp_path / "one.json"
    file.write_text(json.dumps({"id": "a"}, indent=1))
    assert json_rows(file, "data") == [(f"Row 1 of the data '{file}'", {"id": "a"})]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('[{"id": "a"}, 3]', "Row 2 of .* is not a JSON object"),
        ('{"id": "a"}\n{"id"', "Line 2 of .* is not JSON"),
        ('[{"id": "a"},\n{"id"', "Line 1 of .* is not JSON"),
        ("[]", "Line 1 of .* is not a JSON object"),
        ("\ufeff \n", "is empty"),
    ],
)
def test_what_is_no_row_is_named_by_its_place(content: str, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    file.write_text(content)
    with pytest.raises(UsageError, match=sentence):
        json_rows(file, "data")


def test_a_marked_spec_is_read(tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    for encoding in ("utf-8-sig", "utf-16"):
        file.write_text("track: audio-multichallenge\n", encoding=encoding)
        assert read_yaml(file, "spec") == {"track": "audio-multichallenge"}


@pytest.mark.parametrize(
    "text", ["judge: a\nmodel: b\njudge: c\n", "card: {size: 1, 'size': 2}\n", "- {a: 1, a: 1}\n"]
)
def test_a_key_that_stands_twice_in_yaml_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match=r"the key '(judge|size|a)' stands twice"):
        read_yaml(file, "spec")


def test_what_is_merged_in_yaml_may_be_overridden(tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text("- &first {a: 1, b: 2}\n- {<<: *first, b: 3}\n")
    assert read_yaml(file, "spec")[1] == {"a": 1, "b": 3}
