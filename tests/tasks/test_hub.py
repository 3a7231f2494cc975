"""Tasks are read from datasets on the hub at a revision, fetched once and only what is needed of them."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.hub_server import Hub, hub_server
from support.program import vivace

pytestmark = pytest.mark.usefixtures("models_start_at_once")

OLD, NEW = "a" * 40, "b" * 40


def row(question: str) -> bytes:
    """A file with one question."""
    return json.dumps({"question": question, "answer": "1"}).encode() + b"\n"


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A hub with a dataset of two configurations, at two commits."""
    commits = {
        commit: {
            "README.md": b"# A dataset",
            "main/test-00000-of-00001.jsonl": row(f"{commit[0]} main?"),
            "main/train-00000-of-00001.jsonl": row(f"{commit[0]} train?"),
            "other/test.jsonl": row(f"{commit[0]} other?"),
        }
        for commit in (OLD, NEW)
    }
    with hub_server("org/set", commits, {"main": NEW}) as running:
        yield running


def show(path: str, address: str, cache: Path, *more: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """A sample of GSM8K from that path."""
    return vivace(
        "tasks", "show", f"gsm8k(path={path}{''.join(f',{each}' for each in more)})", "--samples", 1,
        "--format", "json", HF_ENDPOINT=address, HF_HOME=str(cache), **variables,
    )  # fmt: skip


def prompt(done: subprocess.CompletedProcess[str]) -> Any:
    """The prompt that was shown."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)[0]["prompt"]


def test_a_commit_is_fetched_once_and_only_what_is_asked_for(hub: Hub, tmp_path: Path) -> None:
    assert prompt(show(f"org/set@{OLD}/main", hub.base, tmp_path)) == "a main?"
    fetched = [request for request in hub.requests if request.startswith("GET") and "/resolve/" in request]
    assert [request.rpartition("/")[2] for request in fetched] == ["test-00000-of-00001.jsonl"]
    assert prompt(show("org/set@main/main", hub.base, tmp_path)) == "b main?"
    # Without the hub: the commit as it was fetched, although a newer one lies beside it, and no guess where main is.
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{listening.getsockname()[1]}"
        assert prompt(show(f"org/set@{OLD}/main", nobody, tmp_path)) == "a main?"
        gone = show("org/set@main/main", nobody, tmp_path)
    assert gone.returncode == 4 and "does not answer" in gone.stderr and "org/set@COMMIT" in gone.stderr


def test_a_file_is_taken_whatever_its_split(hub: Hub, tmp_path: Path) -> None:
    path = f"org/set@{OLD}/main/train-00000-of-00001.jsonl"
    assert prompt(show(path, hub.base, tmp_path)) == "a train?"
    assert prompt(show(f"org/set@{NEW}/main", hub.base, tmp_path, "split=train")) == "b train?"


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("org/nothing@main", "The hub has no dataset 'org/nothing' at revision 'main'"),
        (f"org/set@{'f' * 40}", "The hub has no dataset 'org/set' at revision 'ffff"),
        (f"org/set@{OLD}/absent", "has no 'absent' that can be read"),
        ("org/set", "There is no data at 'org/set'"),
    ],
)
def test_what_the_hub_does_not_have_is_refused(hub: Hub, tmp_path: Path, path: str, sentence: str) -> None:
    done = show(path, hub.base, tmp_path)
    assert done.returncode == 2 and sentence in done.stderr and "Traceback" not in done.stderr


def test_a_local_folder_comes_before_the_hub(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "set@main").mkdir(parents=True)
    (tmp_path / "org" / "set@main" / "a.jsonl").write_bytes(row("here?"))
    assert prompt(show("org/set@main", hub.base, tmp_path)) == "here?"
    assert not hub.requests
