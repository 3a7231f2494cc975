"""Datasets on the hub, from a small hub on loopback: pinned, cached, and honest about failures."""

from __future__ import annotations

import json
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from support import program
from support.chat_server import chat_server, verdict
from support.datasets import conversation_rows, write_jsonl, write_parquet
from support.hub_server import Hub, hub_server
from support.program import board, vivace
from vivace.files import hub as hub_client

pytestmark = pytest.mark.usefixtures("models_start_at_once")

OLD, NEW, MISSING = "a" * 40, "b" * 40, "f" * 40
PROMPT = "The dataset's own prompt.\n«conversation_history»\n«rubric_item»\nAnswer in JSON."
CARD = f"""---
configs:
- config_name: default
  data_files:
  - split: test
    path: data/test-*
---
# A dataset

```
{PROMPT}
```
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A hub with one dataset at two commits: three conversations, then five."""
    with running_hub(tmp_path) as running:
        yield running


def running_hub(folder: Path) -> AbstractContextManager[Hub]:
    """The hub, until the context is left."""
    commits = {}
    for commit, count in ((OLD, 3), (NEW, 5)):
        content = write_parquet(folder / "part.parquet", conversation_rows(count, turns=2)).read_bytes()
        commits[commit] = {"README.md": CARD.encode(), "data/test-00000-of-00001.parquet": content}
    return hub_server("org/set", commits, {"main": NEW})


def run(tmp_path: Path, data: str, address: str, *more: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """Recorded replies on a dataset of the hub at this address."""
    replies = [{"id": f"conversation{n:04d}", "response": "yes"} for n in range(5)]
    model = ("--model", f"replay:{write_jsonl(tmp_path / 'replies.jsonl', replies)}")
    return vivace(
        "run", "audio-multichallenge", "--data", data, *model, "--judge", "checks", "--format", "json", *more,
        VIVACE_HOME=str(tmp_path / "home"), HF_ENDPOINT=address, HF_HOME=str(tmp_path / "hf"), **variables,
    )  # fmt: skip


def test_a_pinned_dataset_is_fetched_once_and_its_commit_recorded(tmp_path: Path) -> None:
    with running_hub(tmp_path) as hub:
        done = run(tmp_path, f"org/set@{OLD}", hub.base)
        assert done.returncode == 0, done.stderr
        (row,) = json.loads(done.stdout)
        assert (row["data"], row["data_revision"], row["n"]) == ("org/set", OLD, 3)
        assert (row["input_form"], row["passes"]) == ("audio-16k", 0)  # every second check wants a "no"
        (newest,) = json.loads(run(tmp_path, "org/set", hub.base, "--dry-run").stdout)
        assert newest["conversations"] == 5

    again = run(tmp_path, f"org/set@{OLD}", hub.base)
    assert again.returncode == 0, again.stderr
    # The pinned commit, although a newer one lies in the cache beside it.
    assert json.loads(again.stdout)[0]["run"] == row["run"]
    unpinned = run(tmp_path, "org/set", hub.base, HF_HUB_OFFLINE="1")
    assert unpinned.returncode == 4 and "org/set@COMMIT" in unpinned.stderr


def test_the_cards_prompt_is_the_judges(hub: Hub, tmp_path: Path) -> None:
    with chat_server(verdict(True)) as server:
        done = run(
            tmp_path, f"org/set@{OLD}", hub.base, "--limit", "1", "--judge", "litellm:openai/judge",
            "--judge-api-base", server.base, OPENAI_API_KEY="sk-test",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        asked = str(server.calls[-1].messages[0]["content"])
    assert asked.startswith("The dataset's own prompt.\nUser: user 0 says 1") and asked.endswith("Answer in JSON.")
    (row,) = board("--home", tmp_path / "home")
    assert row["judge"] == "openai/judge" and row["apr"] == 1.0

    connection = sqlite3.connect(tmp_path / "home" / "vivace.db")
    assert connection.execute("SELECT prompt_name, prompt FROM judge").fetchall() == [("dataset", PROMPT)]
    connection.close()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("org/nothing", ["no dataset 'org/nothing'", "check the name"]),
        (f"org/set@{MISSING}", ["no dataset", MISSING]),
    ],
)
def test_what_the_hub_does_not_have_is_refused(hub: Hub, tmp_path: Path, data: str, words: list[str]) -> None:
    done = run(tmp_path, data, hub.base)
    assert done.returncode == 2
    assert all(word in done.stderr for word in words) and "Traceback" not in done.stderr
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("silent", [False, True], ids=["refuses connections", "never answers"])
def test_an_unreachable_hub_is_given_up_in_time(
    tmp_path: Path, silent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hub_client.TIMEOUT_S <= 10
    shorter = "from vivace.files import hub; hub.TIMEOUT_S = 1; from vivace.cli.main import main; main()"
    monkeypatch.setattr(program, "PROGRAM", [sys.executable, "-c", shorter])
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        if silent:
            listening.listen(16)
        started = time.monotonic()
        done = run(tmp_path, f"org/set@{OLD}", address)
    assert done.returncode == 4, done.stderr
    assert "does not answer" in done.stderr and len(done.stderr.splitlines()) == 1
    assert time.monotonic() - started < 60
    assert not (tmp_path / "home").exists()
