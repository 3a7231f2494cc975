"""Bad input is refused with one sentence, exit code 2 and nothing written, whatever the input is."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.datasets import conversation_rows, tone, write_jsonl, write_parquet
from support.program import environment, vivace

Refused = Callable[..., str]
RUN = ("run", "audio-multichallenge", "--judge", "checks")


@pytest.fixture
def replies(tmp_path: Path) -> Path:
    """Replies "yes" to eight conversations."""
    return write_jsonl(
        tmp_path / "replies.jsonl", [{"id": f"conversation{n:04d}", "response": "yes"} for n in range(8)]
    )


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Two conversations without audio."""
    return write_jsonl(tmp_path / "texts.jsonl", conversation_rows(2, audio=False))


@pytest.fixture
def run_data(refused: Refused, replies: Path) -> Refused:
    """Run recorded replies on this data, which must be refused."""
    return lambda data, *more: refused(*RUN, "--model", f"replay:{replies}", "--data", data, *more)


@pytest.fixture
def run_row(run_data: Refused, tmp_path: Path) -> Refused:
    """Run on one conversation with some columns replaced, which must be refused."""

    def run(**changes: Any) -> str:
        row = {**conversation_rows(1, audio=False)[0], **changes}
        return run_data(write_jsonl(tmp_path / "row.jsonl", [row]))

    return run


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--track", "x"), ["No such option"]),
        (("--set", "track=nonsense"), ["Unknown track 'nonsense'", "audio-multichallenge"]),
        (("--model", "nonsense:x"), ["Unknown model 'nonsense:x'", "ADAPTER:NAME", "replay"]),
        (("--model", "nonsense"), ["Unknown model 'nonsense'"]),
        (("--model", "replay"), ["'replay' lacks a name"]),
        (("--model", "replay:"), ["'replay:' lacks a name"]),
        (("--model", "litellm:"), ["'litellm:' lacks a name"]),
        (("--model", ""), ["'model'"]),
        (("--judge", "nonsense"), ["Unknown judge 'nonsense'", "checks"]),
        (("--judge", "litellm:"), ["'litellm:' lacks a name"]),
        (("--judge", "checks:x"), ["takes no name"]),
        (("--data", ""), ["'data'"]),
        (("--data", "missing.parquet"), ["no file or folder 'missing.parquet'", "hub-id@revision"]),
        (("--data", "no/such/folder"), ["no file or folder"]),
        (("--limit", "0"), ["'limit'", "greater than or equal to 1"]),
        (("--limit", "-3"), ["'limit'"]),
        (("--limit", "many"), ["--limit"]),
        (("--concurrency", "0"), ["'concurrency'"]),
        (("--timeout", "-1"), ["'timeout'", "greater than 0"]),
        (("--timeout", "nan"), ["'timeout'"]),
        (("--timeout", "inf"), ["'timeout'"]),
        (("--retries", "-1"), ["'retries'"]),
        (("--audio", "8k"), ["--audio", "16k"]),
        (("--items", "nobody"), ["no conversation 'nobody'", "--items"]),
        (("--items", ""), ["'items'"]),
        (("--items", ","), ["'items'"]),
        (("--set", "nonsense"), ["--set nonsense", "key=value"]),
        (("--set", "=3"), ["--set =3"]),
        (("--set", "nonsense=1"), ["Unknown key 'nonsense'", "concurrency"]),
        (("--set", "limit.deep=1"), ["'limit'"]),
        (("--set", "limit=[1"), ["not YAML"]),
        (("--model-arg", "temperature"), ["name=value"]),
        (("--model-arg", "temperature=1"), ["leave out --model-arg"]),
        (("--set", "model-arg={day: 2020-01-01}"), ["'model-arg'", "JSON"]),
        (("--card", "missing.yaml"), ["card '", "missing.yaml' cannot be read"]),
        (
            ("--judge", "litellm:openai/x", "--judge-prompt", "missing.txt"),
            ["judge prompt '", "missing.txt' cannot be read"],
        ),
        (("--format", "xml"), ["--format", "csv"]),
        (("--config", "missing.yaml"), ["spec 'missing.yaml'", "cannot be read"]),
    ],
)
def test_a_wrong_flag_is_named(refused: Refused, replies: Path, arguments: tuple[str, ...], words: list[str]) -> None:
    sentence = refused(*RUN, "--data", "demo", "--model", f"replay:{replies}", *arguments)
    assert all(word in sentence for word in words), sentence


def test_a_missing_key_and_an_unknown_verb_are_named(refused: Refused) -> None:
    assert "'track', 'model' and 'data' are missing" in refused("run")
    assert "'model' and 'data' are missing" in refused("run", "audio-multichallenge")
    assert "'data' is missing" in refused("run", "audio-multichallenge", "--model", "replay:x")
    assert "nonsense" in refused("nonsense")
    assert "Unknown track 'nonsense'" in refused("leaderboard", "nonsense")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("track: audio-multichallenge\ndata: demo\nmodel: replay:x\nnonsense: 1\n", ["Unknown key 'nonsense'"]),
        ("", ["is empty"]),
        ("# nothing but a comment\n", ["is empty"]),
        ("- a\n- b\n", ["keys and values"]),
        ("just a sentence", ["keys and values"]),
        ("track: [unclosed", ["not YAML"]),
        ("track: 5\ndata: demo\nmodel: replay:x\n", ["'track'", "5"]),
        ("track: audio-multichallenge\n", ["'model' and 'data' are missing"]),
        ("track: audio-multichallenge\ndata: demo\nmodel: replay:x\nlimit: few\n", ["'limit'", "'few'"]),
        ("track: audio-multichallenge\ndata: demo\nmodel: replay:x\nitems: []\n", ["'items'"]),
        ("track: audio-multichallenge\ndata: demo\nmodel: replay:x\nmodel-arg: 3\n", ["'model-arg'"]),
    ],
)
@pytest.mark.parametrize("verb", ["run", "submit"])
def test_a_wrong_spec_file_is_named(
    refused: Refused, tmp_path: Path, verb: str, content: str, words: list[str]
) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(content)
    sentence = refused(*(("run", "--config") if verb == "run" else ("submit",)), spec)
    assert all(word in sentence for word in words), sentence


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", None])
def test_an_unreadable_spec_file_is_named(refused: Refused, tmp_path: Path, content: bytes | None) -> None:
    spec = tmp_path / "spec.yaml"
    if content is None:
        spec.mkdir()
    else:
        spec.write_bytes(content)
    assert "cannot be read" in refused("submit", spec)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("name: x\nnonsense: 1\n", ["unknown key 'nonsense'", "licence"]),
        ("- x\n", ["keys and values"]),
        ("name: [x]\n", ["'name'", "text"]),
        ("open_weights: perhaps\n", ["'open_weights'", "true or false"]),
    ],
)
def test_a_wrong_card_is_named(
    refused: Refused, replies: Path, tmp_path: Path, content: str, words: list[str]
) -> None:
    card = tmp_path / "card.yaml"
    card.write_text(content)
    sentence = refused(*RUN, "--data", "demo", "--model", f"replay:{replies}", "--card", card)
    assert all(word in sentence for word in words), sentence


@pytest.mark.parametrize("content", [None, "", "\n\n", '{"id": "a"', "[1]", '{"response": "x"}', '{"id": ""}',
                                     '{"id": "a"}\n{"id": "a"}', '{"id": "a", "response": 3}'])  # fmt: skip
def test_a_wrong_file_of_replies_is_named(refused: Refused, tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "bad.jsonl"
    if content is not None:
        file.write_text(content)
    sentence = refused(*RUN, "--data", "demo", "--model", f"replay:{file}")
    assert "bad.jsonl" in sentence


class TestParquet:
    """Files that are not what they seem."""

    @pytest.fixture
    def whole(self, tmp_path: Path) -> Path:
        return write_parquet(tmp_path / "whole.parquet", conversation_rows(4))

    @pytest.mark.parametrize("cut", ["all", "half", "tail", "head"])
    def test_a_truncated_file_is_refused(self, run_data: Refused, whole: Path, cut: str) -> None:
        content = whole.read_bytes()
        end = {"all": 0, "half": len(content) // 2, "tail": len(content) - 8, "head": 3}[cut]
        whole.write_bytes(content[:end])
        sentence = run_data(whole)
        assert "whole.parquet" in sentence and "fetch it again" in sentence

    def test_a_corrupted_page_in_the_middle_is_refused(self, run_data: Refused, tmp_path: Path) -> None:
        import pyarrow
        import pyarrow.parquet

        path = write_parquet(tmp_path / "page.parquet", conversation_rows(40, audio=False))
        pyarrow.parquet.write_table(pyarrow.parquet.read_table(path), path, compression="zstd", use_dictionary=False)
        row_group = pyarrow.parquet.ParquetFile(path).metadata.row_group(0)
        column = row_group.column(row_group.num_columns // 2)
        content = bytearray(path.read_bytes())
        middle = column.data_page_offset + column.total_compressed_size // 2
        content[middle : middle + 24] = bytes(24)
        path.write_bytes(bytes(content))
        assert "is damaged" in run_data(path)

    def test_text_that_is_not_utf8_is_refused(self, run_data: Refused, tmp_path: Path) -> None:
        import pyarrow
        import pyarrow.parquet

        rows = conversation_rows(2, audio=False)
        columns = {name: pyarrow.array([row[name] for row in rows], pyarrow.string()) for name in rows[0]}
        _, offsets, content = pyarrow.array([b"hello \xff\xfe", b"hello"], pyarrow.binary()).buffers()
        columns["user_turn_1_transcript"] = pyarrow.StringArray.from_buffers(2, offsets, content)
        pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "latin.parquet")
        assert "is damaged" in run_data(tmp_path / "latin.parquet")

    @pytest.mark.parametrize("column", ["id", "axis", "user_turn_1_transcript", "rubric"])
    def test_a_missing_column_is_named(self, run_data: Refused, tmp_path: Path, column: str) -> None:
        rows = [{key: value for key, value in row.items() if key != column} for row in conversation_rows(2)]
        sentence = run_data(write_parquet(tmp_path / "lacking.parquet", rows))
        assert f"no column '{column}'" in sentence

    def test_no_rows_are_refused(self, run_data: Refused, tmp_path: Path) -> None:
        import pyarrow
        import pyarrow.parquet

        path = write_parquet(tmp_path / "none.parquet", conversation_rows(1))
        pyarrow.parquet.write_table(pyarrow.parquet.read_table(path).slice(0, 0), path)
        assert "no conversations" in run_data(path)

    def test_a_folder_without_parquet_and_a_file_of_another_kind_are_refused(
        self, run_data: Refused, tmp_path: Path
    ) -> None:
        (tmp_path / "empty").mkdir()
        assert "no .parquet files" in run_data(tmp_path / "empty")
        (tmp_path / "data.csv").write_text("id,axis\n1,2\n")
        assert "not a whole parquet file" in run_data(tmp_path / "data.csv")


WAV = tone(300, container="WAV")
BAD_AUDIO = {
    "zero-length": b"",
    "text": b"I am not a recording, I am a sentence.",
    "random": bytes(range(7, 250)) * 4,
    "cut WAV header": WAV[:20],
    "WAV header alone": WAV[:44],
    "cut in half": WAV[: len(WAV) // 2],
    "cut FLAC header": tone(300)[:30],
    "cut FLAC": tone(300)[: len(tone(300)) // 2],
    "cut Ogg header": tone(300, container="OGG")[:60],
    "cut MP3 header": tone(300, container="MP3")[:3],
}


@pytest.mark.parametrize("content", BAD_AUDIO.values(), ids=BAD_AUDIO.keys())
def test_audio_that_does_not_decode_is_named(run_data: Refused, tmp_path: Path, content: bytes) -> None:
    rows = conversation_rows(3)
    rows[1]["user_turn_2_audio"]["bytes"] = content
    sentence = run_data(write_parquet(tmp_path / "audio.parquet", rows))
    assert "Conversation 'conversation0001', user turn 2" in sentence


def test_a_turn_without_audio_is_named(run_data: Refused, tmp_path: Path) -> None:
    rows = conversation_rows(3)
    rows[2]["user_turn_3_audio"] = None
    sentence = run_data(write_parquet(tmp_path / "audio.parquet", rows))
    assert "'conversation0002'" in sentence and "user turn 3" in sentence and "--audio transcript" in sentence


@pytest.mark.parametrize(
    "rubric", ["one sentence", "{}", '{"a": 1}', "[1, 2]", "[]", '[""]', '["a", null]', "", None, "[", 5]
)
def test_a_rubric_that_is_no_list_of_sentences_is_refused(run_row: Refused, rubric: object) -> None:
    sentence = run_row(rubric=rubric, rubric_checks=None)
    assert "Conversation 'conversation0000'" in sentence and "rubric" in sentence


@pytest.mark.parametrize(
    "checks",
    [
        '[{"states_one_of": ["yes"]}]',
        '[{"nonsense": ["yes"]}, {"nonsense": ["no"]}]',
        '[{"states_one_of": 5}, null]',
        "{}",
        "[1, 2]",
        "nonsense",
    ],
)
def test_wrong_rubric_checks_are_refused(run_row: Refused, checks: str) -> None:
    sentence = run_row(rubric_checks=checks)
    assert "Conversation 'conversation0000'" in sentence and "rubric_checks" in sentence


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"id": None}, ["Row 1", "no id"]),
        ({"id": "  "}, ["Row 1", "no id"]),
        ({"id": 7}, ["Row 1", "no id"]),
        ({"id": "a\u0000b"}, ["Row 1", "unprintable"]),
        ({"axis": "VoiceEditing"}, ["'conversation0000'", "VoiceEditing", "VOICE_EDITING"]),
        ({"axis": None}, ["'conversation0000'", "axis"]),
        ({f"user_turn_{n}_transcript": None for n in range(1, 9)}, ["no user turn"]),
        ({"user_turn_1_transcript": 3}, ["'user_turn_1_transcript'", "not text"]),
    ],
)
def test_a_wrong_row_is_named(run_row: Refused, changes: dict[str, Any], words: list[str]) -> None:
    sentence = run_row(**changes)
    assert all(word in sentence for word in words), sentence


def test_an_id_that_stands_twice_is_named(run_data: Refused, tmp_path: Path) -> None:
    rows = conversation_rows(2, audio=False)
    assert "'conversation0000' stands twice" in run_data(write_jsonl(tmp_path / "twice.jsonl", [*rows, rows[0]]))


def test_replies_without_any_reply_are_refused(refused: Refused, texts: Path, tmp_path: Path) -> None:
    replies = write_jsonl(tmp_path / "replies.jsonl", [{"id": "conversation0000", "text": "Yes."}])
    sentence = refused(
        "run", "audio-multichallenge", "--data", texts, "--judge", "checks", "--model", f"replay:{replies}"
    )
    assert "No row of the file of replies" in sentence and '"response"' in sentence and "id, text" in sentence


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"id": "nobody", "criteria_met": [true, true]}', ["'nobody'", "no such conversation"]),
        ('{"id": "conversation0000", "criteria_met": [true]}', ["1 verdicts for 2 rubric items"]),
        ('{"id": "conversation0000", "criteria_met": [true, true, true]}', ["3 verdicts for 2"]),
        ('{"id": "conversation0000", "criteria_met": ["true", true]}', ["true, false or null"]),
        ('{"id": "conversation0000", "criteria_met": [1, 0]}', ["true, false or null"]),
        ('{"id": "conversation0000", "criteria_met": "true"}', ["true, false or null"]),
        ('{"id": "conversation0000"}\n{"id": "conversation0000"}', ["Line 2", "repeats the id"]),
        ('{"criteria_met": [true, true]}', ["Line 1", '"id"']),
        (
            '{"id": "conversation0000", "criterion_met": [true, true]}',
            ['from "criteria_met"', "only criterion_met, id"],
        ),
        ("not JSON lines", ["Line 1", "not JSON"]),
        ("[]", ["Line 1", "not a JSON object"]),
        ("", ["is empty"]),
        (None, ["cannot be read"]),
    ],
)
def test_a_wrong_verdict_file_is_named(
    refused: Refused, texts: Path, tmp_path: Path, content: str | None, words: list[str]
) -> None:
    file = tmp_path / "verdicts.jsonl"
    if content is not None:
        file.write_text(content)
    sentence = refused(
        "import", "audio-multichallenge", "--data", texts, "--verdicts", file, "--model", "m", "--judge-name", "j"
    )
    assert all(word in sentence for word in words), sentence


def test_replies_to_none_of_the_conversations_are_refused(run_data: Refused, texts: Path, replies: Path) -> None:
    write_jsonl(replies, [{"id": f"other{n}", "response": "yes"} for n in range(2)])
    assert "'other0' and others, and to none of the 2" in run_data(texts)
    write_jsonl(replies, [{"id": "conversation0001", "response": "yes"}])
    assert "to none of the 1" in run_data(texts, "--items", "conversation0000")


@pytest.mark.parametrize("judge", ["checks", "checks,litellm:openai/o4-mini"])
def test_checks_cannot_judge_what_carries_none(
    run_row: Refused, run_data: Refused, tmp_path: Path, judge: str
) -> None:
    rows = conversation_rows(2, audio=False)
    rows[0]["rubric_checks"] = json.dumps([None, None])
    data = write_jsonl(tmp_path / "data.jsonl", rows)
    sentence = run_data(data, "--items", "conversation0000", "--judge", judge, "--dry-run")
    assert "carries a machine check" in sentence and "--judge" in sentence
    assert "carries a machine check" in run_row(rubric_checks=None)


def test_an_import_without_its_judges_name_is_refused(refused: Refused, texts: Path, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "v.jsonl", [{"id": "conversation0000", "criteria_met": [True, False]}])
    assert "--judge-name" in refused(
        "import", "audio-multichallenge", "--data", texts, "--verdicts", file, "--model", "m"
    )
    assert "Unknown track" in refused(
        "import", "nonsense", "--data", texts, "--verdicts", file, "--model", "m", "--judge-name", "j"
    )


WRITING = {
    "run": lambda texts, replies: (*RUN, "--data", texts, "--model", f"replay:{replies}"),
    "import": lambda texts, replies: (
        "import", "audio-multichallenge", "--data", texts, "--verdicts", replies, "--model", "m",
    ),
    "retract": lambda texts, replies: ("retract", "x", "--reason", "y"),
    "cancel": lambda texts, replies: ("cancel", "x"),
    "leaderboard": lambda texts, replies: ("leaderboard",),
    "status": lambda texts, replies: ("status",),
    "upgrade": lambda texts, replies: ("db", "upgrade"),
}  # fmt: skip


@pytest.fixture(params=WRITING)
def verb(request: pytest.FixtureRequest, texts: Path, tmp_path: Path) -> tuple[object, ...]:
    """Every verb that opens the database."""
    two = write_jsonl(tmp_path / "two.jsonl", [{"id": f"conversation{n:04d}", "response": "yes"} for n in range(2)])
    arguments: tuple[object, ...] = WRITING[request.param](texts, two)
    return arguments


class TestDatabase:
    """Databases that are not ours, not of this schema, or not there."""

    @pytest.fixture
    def stamped(self, call: Callable[..., Any], tmp_path: Path) -> Callable[[str], Path]:
        def stamp(revision: str) -> Path:
            path = tmp_path / "stamped.db"
            assert call("db", "upgrade", "--database", path).code == 0
            connection = sqlite3.connect(path)
            connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))
            connection.commit()
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.close()
            return path

        return stamp

    def test_a_newer_one_is_refused(
        self, refused: Refused, stamped: Callable[[str], Path], verb: tuple[object, ...]
    ) -> None:
        sentence = refused(*verb, "--database", stamped("9999"), "--home", "new-home")
        assert "schema 9999" in sentence and "newer Vivace" in sentence

    def test_an_older_one_is_refused_with_the_way_out(
        self, refused: Refused, stamped: Callable[[str], Path], verb: tuple[object, ...]
    ) -> None:
        if "upgrade" in verb:
            return
        sentence = refused(*verb, "--database", stamped("0001"), "--home", "new-home")
        assert "schema 0001" in sentence and "`vivace db upgrade`" in sentence

    @pytest.mark.parametrize("foreign", ["sqlite", "alembic", "text", "folder"])
    def test_a_foreign_file_is_refused_and_left_alone(
        self, refused: Refused, verb: tuple[object, ...], tmp_path: Path, foreign: str
    ) -> None:
        path = tmp_path / "foreign.db"
        if foreign == "text":
            path.write_text("Dear diary, this is not a database. " * 100)
        elif foreign == "folder":
            path.mkdir()
        else:
            connection = sqlite3.connect(path)
            connection.execute("CREATE TABLE recipe (name TEXT)")
            if foreign == "alembic":
                connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
                connection.execute("INSERT INTO alembic_version VALUES ('c0ffee')")
            connection.commit()
            connection.close()
        assert "foreign.db" in refused(*verb, "--database", path, "--home", "new-home")

    @pytest.mark.parametrize(
        "url",
        [
            "nonsense://x",
            "postgresql://[::1/x",
            "postgresql://host:port/x",
            "sqlite://",
            "mysql://host/x",
            "postgresql+asyncpg://host/x",
        ],
    )
    def test_a_bad_url_is_refused(self, refused: Refused, verb: tuple[object, ...], url: str) -> None:
        assert "database" in refused(*verb, "--database", url)

    def test_an_unreachable_server_is_refused_in_time_and_the_password_not_shown(
        self, refused: Refused, verb: tuple[object, ...]
    ) -> None:
        started = time.monotonic()
        sentence = refused(*verb, "--database", "postgresql://me:hunter2@127.0.0.1:1/x", "--home", "new-home")
        assert "cannot be opened" in sentence and "hunter2" not in sentence
        assert time.monotonic() - started < 60


class TestHome:
    """Home folders that cannot be written."""

    @pytest.fixture
    def recorded(self, texts: Path, replies: Path) -> tuple[object, ...]:
        return (*RUN, "--data", texts, "--model", f"replay:{replies}")

    @pytest.mark.parametrize("home", ["/dev/null/x", "replies.jsonl/x", "/proc/x"])
    def test_one_that_cannot_be_made_is_refused(
        self, refused: Refused, recorded: tuple[object, ...], home: str
    ) -> None:
        sentence = refused(*recorded, "--home", home)
        assert "cannot be" in sentence and "--home" in sentence

    @pytest.mark.skipif(shutil.which("unshare") is None, reason="no unshare")
    def test_one_on_a_read_only_disk_is_refused(self, recorded: tuple[object, ...], tmp_path: Path) -> None:
        disk = tmp_path / "disk"
        disk.mkdir()
        mount = f"mount -t tmpfs -o ro none '{disk}'"
        if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True).returncode:
            pytest.skip("this process may not mount")
        command = [sys.executable, "-m", "vivace", *map(str, recorded), "--home", str(disk / "home")]
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh", *command],
            capture_output=True, text=True, env=environment(), check=False,
        )  # fmt: skip
        assert done.returncode == 2
        assert "Read-only file system" in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"VIVACE_LEASE_SECONDS": "soon"}, ["VIVACE_LEASE_SECONDS", "'soon'"]),
        ({"VIVACE_LEASE_SECONDS": "0"}, ["VIVACE_LEASE_SECONDS"]),
    ],
)
def test_a_wrong_variable_is_named(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], words: list[str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    sentence = refused("leaderboard")
    assert all(word in sentence for word in words), sentence


def test_an_unreadable_env_file_is_named(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"VIVACE_HOME=\xff\xfe")
    assert "'.env' cannot be read" in refused("leaderboard")


def test_an_unknown_id_creates_no_database(refused: Refused) -> None:
    for arguments in (
        ("retract", "x", "--reason", "y"),
        ("cancel", "x"),
        ("export", "x"),
        ("logs", "x"),
        ("status", "x"),
    ):
        assert "'x'" in refused(*arguments)


def test_a_real_process_says_the_same_and_only_debug_shows_a_traceback(tmp_path: Path) -> None:
    arguments = ("run", "audio-multichallenge", "--data", "nowhere", "--model", "replay:x")
    done = vivace(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: There is no file or folder 'nowhere'")
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" in vivace("--debug", *arguments, cwd=tmp_path).stderr
    assert "Traceback" not in vivace(*arguments, cwd=tmp_path, VIVACE_DEBUG="0").stderr
    assert list(tmp_path.iterdir()) == []


def test_an_unexpected_error_is_one_line_too(call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr("vivace.settings.load_settings", broken)
    done = call("leaderboard")
    assert done.code == 1
    assert len(done.err.splitlines()) == 1 and "first line second line" in done.err and "--debug" in done.err


def test_rows_of_the_test_data_are_json(texts: Path) -> None:
    assert [json.loads(line)["id"] for line in texts.read_text().splitlines()] == [
        "conversation0000",
        "conversation0001",
    ]


DEEP = "[" * 100_000 + "]" * 100_000
ANCHORS = "a: &a0 [x]\n" + "".join(
    f"b{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 11)
)
MERGED = "a: &a0 {k: 1}\n" + "".join(
    f"b{level}: &a{level} {{<<: [{', '.join([f'*a{level - 1}'] * 10)}]}}\n" for level in range(1, 11)
)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (DEEP, ["nested deeper"]),
        ("{a: " * 1000, ["nested deeper"]),
        (ANCHORS, ["aliases unfold"]),
        (MERGED, ["aliases unfold"]),
        ("a: &a [*a]\n", ["aliases unfold"]),
        ('track: "\\ud800"\n', ["half of a character"]),
        ("limit: " + "7" * 5000, ["5,000 characters"]),
        ("limit: 2001-99-99", ["month"]),
        ("limit: !!timestamp soon", ["tag"]),
        ("# " + "x" * 1_000_000, ["1,000,002 bytes"]),
    ],
    ids=["deep list", "deep mapping", "anchors", "merged", "itself", "half", "number", "date", "tag", "long"],
)
def test_a_spec_that_explodes_is_refused(refused: Refused, tmp_path: Path, content: str, words: list[str]) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(content)
    sentence = refused("submit", spec)
    assert all(word in sentence for word in words), sentence


def test_a_file_without_end_is_refused(refused: Refused) -> None:
    assert "does not end" in refused("submit", "/dev/zero")


def test_nested_json_is_refused_wherever_it_stands(
    refused: Refused, run_row: Refused, replies: Path, tmp_path: Path
) -> None:
    deep = tmp_path / "deep.jsonl"
    deep.write_text(f'{{"id": {DEEP}}}\n')
    assert "nested deeper" in refused(*RUN, "--data", "demo", "--model", f"replay:{deep}")
    assert "nested deeper" in refused(*RUN, "--data", deep, "--model", f"replay:{replies}")
    assert "nested deeper" in refused("tasks", "show", f"gsm8k(path={deep})")
    assert "nested deeper" in run_row(rubric=DEEP)
    assert "nested deeper" in run_row(rubric_checks=DEEP)
    flags = (*RUN, "--data", "demo", "--model", f"replay:{replies}")
    assert "nested deeper" in refused(*flags, "--set", f"model-arg.x={'[' * 1000}")


def test_half_a_character_is_refused(
    call: Callable[..., Any], refused: Refused, replies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "half of a character" in refused(
        *RUN, "--data", "demo", "--model", "litellm:openai/x", "--model-arg", 'user="\\ud800"'
    )
    assert "argument 6 is not UTF-8" in refused(*RUN, "--data", "demo\udcff", "--model", f"replay:{replies}")
    monkeypatch.setenv("VIVACE_HOME", "home\udcff")
    assert "VIVACE_HOME is not UTF-8" in refused("status")
