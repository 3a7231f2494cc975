"""Voicing a set: the same bytes every time, nothing spoken twice, one speaker per conversation, clear refusals."""

from __future__ import annotations

import io
import json
import shutil
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import soundfile
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from support.datasets import conversation_rows, tone, write_jsonl
from support.program import start_vivace, vivace
from vivace.audio.voice import SpeechVoice, VoiceError, espeak, open_voice
from vivace.cli.subjects.data import voice
from vivace.demo import DATA
from vivace.errors import IncompleteError, UnreachableError, UsageError
from vivace.models.client import transport
from vivace.tracks.dialogue.data.conversations import VOICES_KEY
from vivace.tracks.dialogue.data.readers import open_conversations
from vivace.tracks.dialogue.data.spoken_turns import Voiced, voice_set
from vivace.tracks.dialogue.data.validation import validate

needs_espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not on the PATH")


class Tones:
    """A voice that hums instead of speaking, and breaks down when it is told to."""

    def __init__(self, name: str, hertz: float, last: int | None = None) -> None:
        self.name = name
        self.identity = {"hertz": hertz}
        self.spoken: list[str] = []
        self._last = last
        self._lock = threading.Lock()

    def speak(self, text: str) -> bytes:
        """A tone as long as the text; nothing after the last one."""
        with self._lock:
            if len(self.spoken) == self._last:
                raise IncompleteError("The voice is gone.")
            self.spoken.append(text)
        return tone(self.identity["hertz"], 0.01 * len(text), container="WAV")


def transcripts(folder: Path, count: int = 6) -> Path:
    """A set without audio."""
    return write_jsonl(folder / "set.jsonl", conversation_rows(count, audio=False))


def voiced(
    data: Path | str,
    voices: list[SpeechVoice],
    folder: Path,
    items: list[str] | None = None,
    limit: int | None = None,
) -> Voiced:
    """Voice a set into `folder`, keeping recordings there, too."""
    folder.mkdir(exist_ok=True)
    source = open_conversations(str(data))
    return voice_set(
        source,
        source.chosen(items, limit),
        voices,
        cache=folder / "kept",
        out=folder / "out.parquet",
        concurrency=2,
        progress=lambda _done, _total: None,
    )


def rows_of(folder: Path) -> dict[str, dict[str, Any]]:
    """The rows written, by id."""
    return {row["id"]: row for row in pyarrow.parquet.read_table(folder / "out.parquet").to_pylist()}


def speakers_of(folder: Path) -> dict[str, str]:
    """Who speaks in which conversation, by the file's metadata."""
    metadata = pyarrow.parquet.read_schema(folder / "out.parquet").metadata
    speakers: dict[str, str] = json.loads(metadata[VOICES_KEY])["speakers"]
    return speakers


@needs_espeak
def test_the_same_tools_give_the_same_bytes_and_a_sound_set(tmp_path: Path) -> None:
    names = ["espeak-ng:en-us+f2@170", "espeak-ng:en-gb+m3"]
    for folder in ("a", "b"):
        voiced(DATA, [open_voice(name) for name in names], tmp_path / folder, limit=3)
    first = tmp_path / "a" / "out.parquet"
    assert first.read_bytes() == (tmp_path / "b" / "out.parquet").read_bytes()

    found = validate(str(first), lambda _done, _total: None)
    assert found.findings == []
    assert found.recordings == 10
    original = open_conversations(str(DATA)).chosen(None, 3)
    spoken = open_conversations(str(first)).conversations
    assert [replace(conversation, speaker=None) for conversation in spoken] == list(original)

    metadata = json.loads(pyarrow.parquet.read_schema(first).metadata[VOICES_KEY])
    assert set(metadata["voices"]) == set(names)
    assert metadata["voices"][names[1]]["words_per_minute"] == 165
    assert metadata["source"]["revision"] == open_conversations(str(DATA)).revision


@needs_espeak
def test_the_file_opens_as_the_public_one_does(tmp_path: Path) -> None:
    import datasets

    voiced(DATA, [open_voice("espeak-ng:en-us")], tmp_path, limit=1)
    opened = datasets.load_dataset(str(tmp_path), split="train", cache_dir=str(tmp_path / "hf"))
    assert isinstance(opened.features["user_turn_1_audio"], datasets.Audio)
    names = pyarrow.parquet.read_schema(DATA).names
    assert opened.column_names == names
    row = rows_of(tmp_path).popitem()[1]
    samples, rate = soundfile.read(io.BytesIO(row["user_turn_1_audio"]["bytes"]))
    assert rate == 22_050
    words = len(row["user_turn_1_transcript"].split())
    assert 100 < words / (len(samples) / rate / 60) < 240
    assert np.max(np.abs(samples)) == pytest.approx(0.7, abs=0.1)


def test_each_conversation_has_one_speaker_whoever_else_is_asked_for(tmp_path: Path) -> None:
    data = transcripts(tmp_path, 24)
    voices = [Tones("low", 200), Tones("middle", 400), Tones("high", 800)]
    voiced(data, voices, tmp_path / "all")
    voiced(data, voices, tmp_path / "some", items=[f"conversation{n:04d}" for n in (3, 8, 9, 20, 23)])
    everyone, some = speakers_of(tmp_path / "all"), speakers_of(tmp_path / "some")
    assert set(everyone.values()) == {"low", "middle", "high"}
    assert [everyone[f"conversation{n:04d}"] for n in range(4)] == ["middle", "low", "low", "middle"]
    assert some == {key: everyone[key] for key in some}
    assert len(some) == 5
    hertz = {"low": 200, "middle": 400, "high": 800}
    spoken = open_conversations(str(tmp_path / "all" / "out.parquet")).conversations
    assert {one.id: one.speaker for one in spoken} == everyone
    for key, row in rows_of(tmp_path / "all").items():
        for turn in (1, 2, 3):
            expected = tone(hertz[everyone[key]], 0.01 * len(row[f"user_turn_{turn}_transcript"]), container="WAV")
            assert row[f"user_turn_{turn}_audio"]["bytes"] == expected
            assert row[f"user_turn_{turn}_audio"]["path"] == f"{key}_user_turn_{turn}.wav"
        assert row["user_turn_4_audio"] is None


def test_a_broken_off_call_goes_on_where_it_stopped(tmp_path: Path) -> None:
    data, folder = transcripts(tmp_path), tmp_path / "out"
    broken, whole, idle = Tones("voice", 300, last=7), Tones("voice", 300), Tones("voice", 300)
    with pytest.raises(IncompleteError):
        voiced(data, [broken], folder)
    assert [file.name for file in folder.iterdir()] == ["kept"]  # no half-written parquet file
    done = voiced(data, [whole], folder)
    assert (done.conversations, done.utterances, done.spoken) == (6, 18, 11)
    assert sorted(broken.spoken + whole.spoken) == sorted(f"user {n} says {t}" for n in range(6) for t in (1, 2, 3))
    assert voiced(data, [idle], folder).spoken == 0
    assert idle.spoken == []


def test_the_first_turn_goes_alone(tmp_path: Path) -> None:
    asked = []

    class Refused(Tones):
        def speak(self, text: str) -> bytes:
            asked.append(text)
            raise UsageError("The key is refused.")

    with pytest.raises(UsageError, match="refused"):
        voiced(transcripts(tmp_path), [Refused("voice", 300)], tmp_path / "out")
    assert len(asked) == 1


def test_another_voice_or_text_is_spoken_anew(tmp_path: Path) -> None:
    rows = conversation_rows(2, audio=False)
    voiced(write_jsonl(tmp_path / "set.jsonl", rows), [Tones("voice", 300)], tmp_path / "out")
    rows[1]["user_turn_2_transcript"] = " something else "
    changed, other = Tones("voice", 300), Tones("voice", 301)
    data = write_jsonl(tmp_path / "set.jsonl", rows)
    voiced(data, [changed], tmp_path / "out")
    assert changed.spoken == ["something else"]
    voiced(data, [other], tmp_path / "out")
    assert len(other.spoken) == 6
    assert rows_of(tmp_path / "out")["conversation0001"]["user_turn_2_transcript"] == " something else "


def test_lists_in_jsonl_become_the_columns_of_the_public_set(tmp_path: Path) -> None:
    row = conversation_rows(1, audio=False)[0]
    row |= {"rubric": ["Says é."], "rubric_checks": [None]}
    voiced(write_jsonl(tmp_path / "set.jsonl", [row]), [Tones("voice", 300)], tmp_path)
    assert rows_of(tmp_path)["conversation0000"]["rubric"] == '["Says é."]'
    assert rows_of(tmp_path)["conversation0000"]["rubric_checks"] == "[null]"


@needs_espeak
def test_a_killed_command_goes_on(tmp_path: Path) -> None:
    rows = conversation_rows(10, audio=False)
    for row in rows:
        for turn in (1, 2, 3):
            row[f"user_turn_{turn}_transcript"] += " and goes on and on, word after word," * 8
    command = ("data", "voice", write_jsonl(tmp_path / "set.jsonl", rows), "--out", tmp_path / "out.parquet")
    command += ("--voice", "espeak-ng:en-us", "--home", tmp_path / "home")
    running = start_vivace(*command)
    deadline = time.monotonic() + 300
    while len(list((tmp_path / "home").rglob("*"))) < 8 and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    assert not (tmp_path / "out.parquet").exists()
    done = vivace(*command)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'out.parquet'}\n"), done.stderr
    spoken = int(done.stderr.split("30 user turns (")[1].split(" spoken now")[0])
    assert 0 < spoken < 30


@needs_espeak
def test_the_transcript_is_spoken_as_it_stands() -> None:
    def spoken(text: str) -> list[float]:
        samples: list[float] = espeak(text, "en-us", 165).samples[:, 0].tolist()
        return samples

    assert spoken("[[h@l'oU]] there") != spoken("hello there")  # no phonemes
    assert spoken("<b>really</b>") != spoken("really")  # no markup
    assert len(spoken("--help")) > 0  # no option
    silence = open_voice("espeak-ng:en-us").speak("…")
    assert np.max(np.abs(soundfile.read(io.BytesIO(silence))[0])) < 0.01


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"voices": ["robot"]}, "'robot' is not a voice; write espeak-ng:VOICE"),
        ({"voices": ["espeak-ng:xyzzy"]}, "espeak-ng has no voice 'xyzzy'"),
        ({"voices": ["espeak-ng:en-us+zz"]}, "espeak-ng has no variant 'zz'"),
        ({"voices": ["espeak-ng:en-us@20"]}, "speaks 20 words a minute; espeak-ng takes 80 to 450"),
        ({"items": "nobody"}, "has no conversation 'nobody'"),
        ({"items": ","}, "No conversation is chosen"),
        ({"out": Path("set.ogg")}, "let --out end in .parquet"),
        ({"out": Path("nowhere/out.parquet")}, "'nowhere/out.parquet' cannot be written"),
        ({"out": Path("set.parquet")}, "'set.parquet' is the set itself"),
        ({"home": Path("set.parquet")}, "cannot be written"),
    ],
)
@needs_espeak
def test_refusals_leave_everything_as_it_is(
    options: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(DATA, "set.parquet")
    with pytest.raises(UsageError, match=said):
        voice(**{"data": "set.parquet", "out": Path("out.parquet"), "limit": 1, **options})
    assert [file.name for file in tmp_path.iterdir()] == ["set.parquet"]
    assert Path("set.parquet").read_bytes() == DATA.read_bytes()


def test_without_espeak_or_transcripts_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = conversation_rows(1, audio=False)[0] | {"user_turn_2_transcript": None}
    with pytest.raises(UsageError, match="no transcript of user turn 2"):
        voiced(write_jsonl(tmp_path / "set.jsonl", [row]), [Tones("voice", 300)], tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="espeak-ng is not installed; install it"):
        open_voice("espeak-ng:en-us")


def test_a_speech_api_is_asked_for_what_is_not_kept(
    tmp_path: Path, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a-key-for-this-test")
    asked: list[dict[str, Any]] = []

    def answer(request: Request) -> Response:
        asked.append(request.get_json())
        if len(asked) == 1:
            return Response("{}", status=429, headers={"retry-after-ms": "1"})
        return Response(tone(300, container="MP3"), content_type="audio/mpeg")

    httpserver.expect_request("/v1/models").respond_with_json({"data": []})
    httpserver.expect_request("/v1/audio/speech").respond_with_handler(answer)
    speaker = open_voice("litellm:openai/gpt-4o-mini-tts:alloy", httpserver.url_for("/v1"))
    done = voiced(transcripts(tmp_path, 2), [speaker], tmp_path)
    assert done.spoken == 6
    assert len(asked) == 7
    assert asked[0] == asked[1]
    assert {key: asked[0][key] for key in ("model", "voice", "response_format")} == {
        "model": "gpt-4o-mini-tts", "voice": "alloy", "response_format": "mp3",
    }  # fmt: skip
    assert {one["input"] for one in asked} == {f"user {n} says {t}" for n in (0, 1) for t in (1, 2, 3)}
    assert rows_of(tmp_path)["conversation0000"]["user_turn_1_audio"]["path"].endswith(".mp3")
    assert b"sk-a-key" not in (tmp_path / "out.parquet").read_bytes()
    assert voiced(tmp_path / "set.jsonl", [speaker], tmp_path).spoken == 0


@pytest.mark.parametrize(
    ("status", "body", "error", "said"),
    [
        (401, b'{"error": {"message": "bad key sk-a-key-for-this-test"}}', UsageError, "is refused"),
        (404, b'{"error": {"message": "no such model"}}', UsageError, "no such model"),
        (400, b'{"error": {"message": "no such voice"}}', VoiceError, "no such voice"),
        (200, b'{"text": "no audio"}', VoiceError, "what is no recording"),
        (503, b"{}", IncompleteError, "goes on where this one stopped"),
    ],
)
def test_a_speech_api_that_fails_says_why(
    status: int,
    body: bytes,
    error: type[Exception],
    said: str,
    httpserver: HTTPServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a-key-for-this-test")
    httpserver.expect_request("/v1/models").respond_with_json({"data": []})
    httpserver.expect_request("/v1/audio/speech").respond_with_data(body, status, {"retry-after-ms": "1"})
    speaker = open_voice("litellm:openai/gpt-4o-mini-tts:alloy", httpserver.url_for("/v1"))
    with pytest.raises(error, match=said) as raised:
        speaker.speak("Hello")
    assert "sk-a-key" not in str(raised.value)


def test_a_speech_api_without_end_is_cut_off(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it sent was read into memory, and one that sent a byte now and then was waited for for ever."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a-key-for-this-test")
    monkeypatch.setattr(transport, "STREAM_LIMIT", 1000)
    httpserver.expect_request("/v1/audio/speech").respond_with_data(bytes(1001), content_type="audio/mpeg")
    speaker = open_voice("litellm:openai/gpt-4o-mini-tts:alloy", httpserver.url_for("/v1"), retries=0)
    with pytest.raises(VoiceError, match="longer than 1,000 bytes"):
        speaker.speak("Hello")


def test_a_speech_api_without_a_key_or_server_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UsageError, match="OPENAI_API_KEY"):
        open_voice("litellm:openai/tts-1:alloy")
    with pytest.raises(UnreachableError, match="Nothing answers for the voice"):
        open_voice("litellm:openai/tts-1:alloy", "http://127.0.0.1:9/v1")


@needs_espeak
def test_the_command_says_what_it_did(tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    command = ("data", "voice", "demo", "--out", out, "--limit", "2", "--home", tmp_path / "home")
    done = vivace(*command)
    assert (done.returncode, done.stdout) == (0, f"{out}\n"), done.stderr
    assert "2 conversations, 6 user turns (6 spoken now)" in done.stderr
    refused = vivace(*command, "--voice", "robot")
    assert refused.returncode == 2
    assert refused.stderr.startswith("Error: 'robot' is not a voice")
    assert refused.stderr.count("\n") == 1
