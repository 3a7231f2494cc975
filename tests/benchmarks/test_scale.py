"""The benchmark of many workers without any: its data, and what is told of a run."""

from __future__ import annotations

from pathlib import Path

from scale import Taken, make_data

from vivace.tracks.dialogue.data.readers import open_conversations


def test_its_conversations_are_read_and_checked_by_machine(tmp_path: Path) -> None:
    make_data(tmp_path / "data.jsonl", 3)
    found = open_conversations(str(tmp_path / "data.jsonl"))
    assert len(found.conversations) == 3
    assert all(one.machine_check for conversation in found.conversations for one in conversation.criteria)


def test_items_are_counted_by_the_second() -> None:
    assert Taken(2, 100, 5.0, {}).items_per_s == 20
