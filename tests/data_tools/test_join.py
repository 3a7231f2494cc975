"""`vivace data join`: what was said in other conversations stands before each, and its end stays its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.datasets import conversation_rows, write_jsonl, write_parquet
from vivace.errors import UsageError
from vivace.tracks.dialogue.data.joining import Joined, join_set
from vivace.tracks.dialogue.data.readers import open_conversations
from vivace.tracks.dialogue.data.validation import validate


def joined(data: Path, out: Path, turns: int = 8, limit: int | None = None) -> Joined:
    source = open_conversations(str(data))
    return join_set(source, source.chosen(None, limit), turns=turns, out=out)


def test_turns_of_others_stand_before_with_their_answers_and_recordings(tmp_path: Path) -> None:
    data, out = write_parquet(tmp_path / "set.parquet", conversation_rows(4, turns=3)), tmp_path / "long.parquet"
    assert joined(data, out) == Joined(4, 32, 12), "of three others two turns each, as far as there is room"
    assert validate(str(out), lambda done, total: None).findings == []
    before, after = open_conversations(str(data)), open_conversations(str(out))
    recordings = {one.id: heard for one, heard in before.recordings(before.conversations)}
    for place, (own, (whole, heard)) in enumerate(
        zip(before.conversations, after.recordings(after.conversations), strict=True)
    ):
        assert (whole.id, whole.axis, whole.criteria) == (own.id, own.axis, own.criteria)
        others = [other for other in before.conversations if other.id != own.id]
        others = [*others[place % 3 :], *others[: place % 3]]
        history = [exchange for other in others for exchange in other.exchanges[:-1]][:5]
        sounds = [sound for other in others for sound in recordings[other.id][:-1]][:5]
        assert whole.exchanges == (*history, *own.exchanges)
        assert heard == [*sounds, *recordings[own.id]]


def test_text_stays_text_and_what_is_long_enough_stays_as_it_is(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = conversation_rows(3, turns=4, audio=False)
    data, out = write_jsonl(tmp_path / "set.jsonl", rows), tmp_path / "long.parquet"
    assert joined(data, out, turns=6, limit=2).user_turns == 12
    after = open_conversations(str(out))
    assert not after.has_audio and len(after.conversations) == 2
    assert joined(data, out, turns=3) == Joined(3, 12, 12)
    assert open_conversations(str(out)).conversations == open_conversations(str(data)).conversations


@pytest.mark.parametrize("count", [1, 3])
def test_where_there_is_nothing_to_join_with_nothing_is_written(count: int, tmp_path: Path) -> None:
    """Of a single conversation, or of questions without answers."""
    rows = conversation_rows(count, turns=2 if count == 1 else 1, audio=False)
    data = write_jsonl(tmp_path / "set.jsonl", rows)
    with pytest.raises(UsageError, match=r"No other conversation of .* has a turn with an answer"):
        joined(data, tmp_path / "long.parquet")
    assert list(tmp_path.iterdir()) == [data]
    more = write_jsonl(tmp_path / "more.jsonl", conversation_rows(2, audio=False))
    with pytest.raises(UsageError, match="cannot be written"):
        joined(more, tmp_path / "no" / "long.parquet")
