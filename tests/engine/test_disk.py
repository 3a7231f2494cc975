"""A full or read-only disk: one clear sentence, nothing corrupt, and the same command goes on later."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import select

from engine.lab import Gate, laboratory, opened
from support.program import vivace
from vivace.errors import VivaceError
from vivace.settings import Settings
from vivace.store.artifacts import Artifacts
from vivace.store.migrate import open_for_writing
from vivace.store.records import add_event
from vivace.store.tables import Event

CONVERSATIONS = 30


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def _remount(folder: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", folder], check=True)


def _only_sentence(talk: str) -> str:
    errors = [line for line in talk.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1, talk
    assert "Traceback" not in talk
    assert "at fault" not in talk
    return errors[0]


def test_a_run_on_a_full_disk_ends_with_a_sentence_and_resumes_once_there_is_space(
    small_disk: Path, tmp_path: Path
) -> None:
    path = small_disk / "vivace.db"
    gate = Gate()
    gate.text = "yes " + 60_000 * "a"
    with laboratory(tmp_path, f"sqlite:///{path}", gate, conversations=CONVERSATIONS, streams=False) as lab:
        arguments = lab.run_arguments("--concurrency", 4)
        full = vivace(*arguments, process=True)  # ends with all of its files closed
        assert full.returncode == 1, full.stderr
        assert "database or disk is full" in _only_sentence(full.stderr)
        recorded = lab.recorded()
        assert 0 < recorded["reply"] < CONVERSATIONS
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]

        _remount(small_disk, "size=16m")
        calls = len(lab.server.calls)
        resumed = vivace(*arguments, process=True)
        assert resumed.returncode == 0, resumed.stderr
        assert len(lab.server.calls) - calls == CONVERSATIONS - recorded["reply"]
        assert lab.recorded() == {
            "reply": CONVERSATIONS, "verdict": 2 * CONVERSATIONS, "attempt": CONVERSATIONS
        }  # fmt: skip

        _remount(small_disk, "ro")
        refused = vivace(*arguments, "--force")
        assert refused.returncode in (1, 2)
        assert "read-only" in _only_sentence(refused.stderr).lower().replace("readonly", "read-only")
        shown = vivace("leaderboard", "--format", "json", *lab.common)
        assert shown.returncode == 0, shown.stderr
        assert '"openai/talker"' in shown.stdout


def test_a_database_in_a_read_only_folder_can_be_read(small_disk: Path) -> None:
    database = open_for_writing(Settings(home=small_disk))
    with database.write() as session:
        add_event(session, "written")
    database.close()
    _remount(small_disk, "ro")
    with opened(f"sqlite:///{small_disk / 'vivace.db'}") as database, database.read() as session:
        assert session.scalars(select(Event.message)).all() == ["written"]


def test_a_new_database_on_a_full_disk_is_refused_with_a_sentence(small_disk: Path, tmp_path: Path) -> None:
    (small_disk / "filler").write_bytes(bytes(2 * 1024 * 1024 - 16 * 1024))
    with laboratory(tmp_path, f"sqlite:///{small_disk / 'vivace.db'}", Gate(), conversations=1) as lab:
        refused = vivace(*lab.run_arguments())
        assert refused.returncode in (1, 2)
        _only_sentence(refused.stderr)
        (small_disk / "filler").unlink()
        assert vivace(*lab.run_arguments()).returncode == 0


def test_an_artifact_that_does_not_fit_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifacts = Artifacts(tmp_path / "artifacts")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(VivaceError, match=r"No space left on device.*free some space"):
            artifacts.put(b"a recording")
    assert [path for path in artifacts.folder.rglob("*") if path.is_file()] == []
    sha256 = artifacts.put(b"a recording")
    assert artifacts.get(sha256) == b"a recording"


def test_artifacts_can_be_read_by_others_as_any_file(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        artifacts = Artifacts(tmp_path / "artifacts")
        mode = artifacts.path(artifacts.put(b"a recording")).stat().st_mode
    finally:
        os.umask(before)
    assert mode & 0o777 == 0o644


def test_a_damaged_artifact_is_not_handed_out(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)
    sha256 = artifacts.put(b"a recording")
    artifacts.path(sha256).write_bytes(b"something else")
    with pytest.raises(VivaceError, match="damaged"):
        artifacts.get(sha256)
