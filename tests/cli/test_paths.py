"""Any path is the file that it names, and nothing that is no path becomes one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.datasets import conversation_rows, write_jsonl
from vivace.engine.queue import system_database_url
from vivace.files.paths import sqlite_url, with_homes
from vivace.settings import Settings, normalised_url
from vivace.store.database import Database

Refused = Callable[..., str]
ODD = ["main%2Ffix", "runs?1", "a#b", "two words", "ü&=+@:;'", "100%", "[x]"]


@pytest.fixture
def run(call: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """Judge recorded replies."""
    texts = write_jsonl(tmp_path / "texts.jsonl", conversation_rows(1, audio=False))
    replies = write_jsonl(tmp_path / "replies.jsonl", [{"id": "conversation0000", "response": "yes"}])
    return lambda *more: call(
        "run", "audio-multichallenge", "--judge", "checks", "--data", texts, "--model", f"replay:{replies}", *more
    )


@pytest.mark.parametrize("name", ODD)
def test_every_character_of_a_path_is_itself(name: str, tmp_path: Path) -> None:
    for url in (Settings(home=tmp_path / name).database_url, normalised_url(f"{tmp_path}/{name}/vivace.db")):
        database = Database(url)
        assert database.path == tmp_path / name / "vivace.db"
        assert Database(system_database_url(database)).path == tmp_path / name / "vivace-queue.db"


def test_homes_of_odd_names_are_apart(run: Callable[..., Any], call: Callable[..., Any], tmp_path: Path) -> None:
    for name in ("runs?1", "runs%2Ffix"):
        assert run("--home", name).code == 0
        assert (tmp_path / name / "vivace.db").is_file()
    assert not (tmp_path / "runs").exists()
    assert len(json.loads(call("leaderboard", "--home", "runs%2Ffix", "--format", "json").out)) == 1
    empty = call("leaderboard", "--home", "runs?3")
    assert (empty.code, empty.out) == (0, "") and "'runs?3/vivace.db'" in empty.err


def test_an_empty_board_names_its_database(call: Callable[..., Any]) -> None:
    assert "no board in 'none.db'" in call("leaderboard", "--database", "none.db").err
    assert "'none.db'" in call("status", "--database", "none.db").err
    assert call("db", "upgrade", "--database", "some.db").code == 0
    assert "board of 'some.db' is empty" in call("leaderboard", "--database", "some.db").err


def test_the_sign_of_a_home_folder_is_written_out_everywhere(
    run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    for text in ("~/a", "replay:~/a", "gsm8k(path=~/a)", "teal(level=1):~/a"):
        assert with_homes(text) == text.replace("~", str(tmp_path / "me"))
    for text in ("a~b", "./~/a", "~not/a/person", "litellm:openai/~", "x:~y.jsonl"):
        assert with_homes(text) == text
    (tmp_path / ".env").write_text("VIVACE_HOME=~/from-file\n")
    assert run().code == 0
    (tmp_path / ".env").unlink()
    assert run("--home=~/from-flag").code == 0
    assert run("--database", "sqlite:///~/one.db").code == 0
    assert run("--database=~/two.db").code == 0
    monkeypatch.setenv("VIVACE_HOME", "~/from-variable")
    assert run().code == 0
    assert not (tmp_path / "~").exists()
    made = {str(path.relative_to(tmp_path / "me")) for path in (tmp_path / "me").rglob("*.db")}
    assert made == {"from-file/vivace.db", "from-flag/vivace.db", "from-variable/vivace.db", "one.db", "two.db"}
    (tmp_path / "texts.jsonl").rename(tmp_path / "me" / "texts.jsonl")
    (tmp_path / "spec.yaml").write_text("data: ~/texts.jsonl\n")
    assert run("--data=~/texts.jsonl").code == 0
    assert run("--set", "data=~/texts.jsonl", "--config", "spec.yaml").code == 0


@pytest.mark.parametrize(
    "database",
    [
        "host=db.example dbname=vivace user=v password=hush-hush",
        "  password = 'hush-hush'",
        "postgresql:db.example",
        "Server=db.example;Database=vivace;Password=hush-hush",
        "DSN=vivace;UID=me;PWD=hush-hush",
        ":memory:",
        "sqlite:///results.db?mode=ro",
        "jdbc:postgresql://db.example/vivace?password=hush-hush",
        "file:results.db?mode=ro",
        "mysql://me:hush-hush@db.example/x",
        "postgresql://me:hush/h?u#sh@db.example:port/x",
    ],
)
def test_what_is_no_path_becomes_no_file(refused: Refused, database: str) -> None:
    """`refused` sees that no file is made."""
    for verb in (("db", "upgrade"), ("leaderboard",), ("status",)):
        sentence = refused(*verb, "--database", database)
        assert "hush" not in sentence and "postgresql://" in sentence


def test_an_unreachable_server_is_named_without_its_password(refused: Refused) -> None:
    sentence = refused("leaderboard", "--database", "postgresql://me:hush-hush@127.0.0.1:9/x?connect_timeout=1")
    assert "hush" not in sentence and "127.0.0.1" in sentence


def test_a_url_is_read_back_as_the_path_it_was_made_of(tmp_path: Path) -> None:
    assert sqlite_url(Path("/a b/c%2Fd?")) == "sqlite:////a%20b/c%252Fd%3F"
