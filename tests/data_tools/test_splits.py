"""Of a folder only the split that is asked for is read, however its files and folders are called."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.datasets import conversation_rows, write_parquet
from vivace.errors import UsageError
from vivace.files.splits import data_files, files_of_split, patterns_of_others
from vivace.tasks.perplexity import read_text
from vivace.tasks.registry import parse_task
from vivace.tracks.dialogue.data.readers import open_conversations
from vivace.tracks.dialogue.data.validation import validate


def chosen(folder: Path, names: list[str], split: str = "test") -> list[str]:
    """The names of the files that belong to a split."""
    files = [folder / name for name in sorted(names)]
    return [str(file.relative_to(folder)) for file in files_of_split(folder, files, split)]


@pytest.mark.parametrize(
    ("names", "split", "expected"),
    [
        (["test-00000-of-00001.parquet", "train-00000-of-00001.parquet"], "test", ["test-00000-of-00001.parquet"]),
        (["train/0000.parquet", "test/0000.parquet"], "test", ["test/0000.parquet"]),
        (["default/partial-train/0.parquet", "default/test/0.parquet"], "test", ["default/test/0.parquet"]),
        (["TRAIN.jsonl", "Test.jsonl"], "test", ["Test.jsonl"]),
        (["gsm8k_train.jsonl", "gsm8k-test.jsonl"], "train", ["gsm8k_train.jsonl"]),
        (["valid.jsonl", "test.jsonl"], "validation", ["valid.jsonl"]),
        (["dev/a.json", "test/a.json"], "validation", ["dev/a.json"]),
        (["dev.json", "validation.json"], "dev", ["dev.json"]),
        (["training_data/test.json", "training_data/x.json"], "train", ["training_data/x.json"]),
        (["a.json", "b/latest.json"], "train", ["a.json", "b/latest.json"]),
    ],
)
def test_names_and_folders_tell_the_split(names: list[str], split: str, expected: list[str], tmp_path: Path) -> None:
    assert chosen(tmp_path, names, split) == expected


@pytest.mark.parametrize(
    ("names", "split", "sentence"),
    [
        (
            ["data.parquet", "test.parquet"],
            "test",
            "'.*data.parquet' names no split, while '.*test.parquet' names test",
        ),
        (["train_test.parquet"], "test", "names the splits test and train"),
        (["dev.json", "valid.json"], "validation", "holds dev and valid"),
        (["train/0.json", "val/0.json"], "test", "no test split at .* but train and val"),
    ],
)
def test_what_cannot_be_told_apart_is_refused(names: list[str], split: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=sentence):
        chosen(tmp_path, names, split)


def test_tasks_texts_and_conversations_are_read_so(tmp_path: Path) -> None:
    for folder in ("Train", "TEST"):
        inside = tmp_path / folder
        inside.mkdir()
        write_parquet(inside / "0000.parquet", [{**conversation_rows(1, audio=False)[0], "id": folder}])
        (inside / ".hidden.json").write_text("{")
        row = {"question": f"{folder}?", "answer": "1", "text": folder}
        (inside / "0000.json").write_text(json.dumps(row))
    assert [one.id for one in open_conversations(str(tmp_path)).conversations] == ["TEST"]
    assert validate(str(tmp_path), lambda *_: None).conversations == 1
    for file in data_files(tmp_path, [".parquet"]):
        file.unlink()
    assert parse_task(f"gsm8k(path={tmp_path})").samples(None, 0)[0].prompt.startswith("TEST?")
    assert read_text(str(tmp_path), "train") == "Train"


def test_other_splits_are_not_fetched() -> None:
    from huggingface_hub.utils import filter_repo_objects

    kept = ["test/0.parquet", "testing.json", "developed.json"]
    others = ["a/train/0.parquet", "VALID-0.parquet", "x/dev.jsonl"]
    assert list(filter_repo_objects([*others, *kept], ignore_patterns=patterns_of_others("test"))) == kept
