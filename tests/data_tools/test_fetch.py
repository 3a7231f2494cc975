"""`vivace data fetch` against a hub on loopback: it pins a branch, downloads, and needs no network afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.datasets import conversation_rows, write_parquet
from support.hub_server import hub_server
from support.program import vivace
from vivace.cli.subjects.data import fetch
from vivace.errors import UsageError

pytestmark = pytest.mark.usefixtures("models_start_at_once")

OLD, NEW = "a" * 40, "b" * 40
FILE = "data/test-00000-of-00001.parquet"


def commit(folder: Path, conversations: int) -> dict[str, bytes]:
    """The files of a commit."""
    file = write_parquet(folder / "set.parquet", conversation_rows(conversations))
    return {FILE: file.read_bytes(), "README.md": b"# Talks\n"}


def test_a_branch_is_pinned_and_what_was_fetched_needs_no_network(tmp_path: Path) -> None:
    commits = {OLD: commit(tmp_path, 2), NEW: commit(tmp_path, 3)}
    with hub_server("team/talks", commits, {"main": OLD}) as hub:
        environment = hub.environment(tmp_path / "cache")
        first = vivace("data", "fetch", "team/talks", **environment)
        assert (first.returncode, first.stdout) == (0, f"team/talks@{OLD}\n"), first.stderr
        assert "2 conversations, with audio" in first.stderr
        hub.branches["main"] = NEW
        second = vivace("data", "fetch", "team/talks@main", **environment)
        assert second.stdout == f"team/talks@{NEW}\n"
        assert sum(f"GET /datasets/team/talks/resolve/{OLD}/{FILE}" == line for line in hub.requests) == 1

        unknown = vivace("data", "fetch", "team/talks@nosuch", **environment)
        assert unknown.returncode == 2
        assert "at revision 'nosuch'" in unknown.stderr

    old = vivace("data", "validate", f"team/talks@{OLD}", **environment)
    assert old.returncode == 0, old.stderr
    assert "2 conversations, 4 criteria, 6 user turns, 6 recordings" in old.stderr
    new = vivace("data", "describe", f"team/talks@{NEW}", "--format", "csv", **environment)
    assert new.stdout.splitlines()[-1].startswith("all,3,6,")


def test_what_is_no_dataset_of_the_hub_is_refused(tmp_path: Path) -> None:
    for name in ("demo", "talks", str(write_parquet(tmp_path / "set.parquet", conversation_rows(1)))):
        with pytest.raises(UsageError, match="OWNER/NAME@REVISION"):
            fetch(name)
