"""Spoken replies over chat completions: asked for, received, kept as sound, and never taken from text alone."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import sqlite3
import wave
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.chat_server import Answer, ChatServer, chat_server
from support.datasets import conversation_rows, tone, write_jsonl, write_parquet
from support.realtime_server import PCM
from vivace.audio.spoken import as_wav
from vivace.engine.sent_files import laid_out, sent
from vivace.errors import UsageError
from vivace.models.adapters import transcription
from vivace.models.adapters.litellm import LiteLLMSystem
from vivace.models.adapters.openai_realtime import with_flags
from vivace.models.adapters.transcribed import Transcribed
from vivace.models.adapters.transcription import Transcription
from vivace.models.base import UNSPOKEN, ModelIdentity, ModelReply, Prompt, RecordedSystem, SpokenOutput, SpokenTurn
from vivace.models.client import tries
from vivace.models.client.calls import CallRecord, ChatOptions, recorded_calls
from vivace.models.registry import open_system
from vivace.settings import Settings
from vivace.spec import dialogue_spec
from vivace.store.artifacts import open_artifacts
from vivace_rubrics.criteria import Unscored

PROMPT = Prompt("c", [(SpokenTurn(None, "hello"), None)])
SPEECH = SpokenOutput("audio", "coral")
USAGE = {
    "prompt_tokens": 40,
    "completion_tokens": 30,
    "prompt_tokens_details": {"audio_tokens": 32, "cached_tokens": 0},
    "completion_tokens_details": {"audio_tokens": 25},
}


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tries, "FIRST_WAIT_S", 0.01)


def encoded(sound: bytes) -> str:
    return base64.b64encode(sound).decode()


def stream(*deltas: dict[str, Any]) -> Answer:
    """The events of a spoken answer, as OpenAI streams them."""
    shared = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m-snapshot"}
    events = [{**shared, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    events.append({**shared, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    events.append({**shared, "choices": [], "usage": USAGE})
    content = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    return Answer(raw=content.encode(), headers={"content-type": "text/event-stream"})


SPOKEN = stream(
    {"role": "assistant", "audio": {"id": "audio_1", "transcript": "Hel"}},
    {"audio": {"data": encoded(PCM[:1000])}},
    {"audio": {"transcript": "lo."}},
    {"audio": {"data": encoded(PCM[1000:])}},
    {"audio": {"expires_at": 5}},
)


def reply_of(
    server: ChatServer, spoken: SpokenOutput = SPEECH, retries: int = 1
) -> tuple[ModelReply, list[CallRecord]]:
    async def ask() -> ModelReply:
        system = LiteLLMSystem("openai/gpt-audio", {}, ChatOptions(server.base, 20, retries), spoken)
        try:
            return await system.reply(PROMPT)
        finally:
            await system.close()

    with recorded_calls() as calls:
        return asyncio.run(ask()), calls


def samples(content: bytes | None) -> tuple[int, int, bytes]:
    assert content is not None
    with wave.open(io.BytesIO(content), "rb") as file:
        return file.getframerate(), file.getnchannels(), file.readframes(file.getnframes())


def test_speech_is_streamed_with_its_transcript_and_times() -> None:
    with chat_server(SPOKEN) as server:
        reply, calls = reply_of(server)
    [call] = server.calls
    assert call.body["modalities"] == ["text", "audio"]
    assert call.body["audio"] == {"voice": "coral", "format": "pcm16"}
    assert call.body["stream"] is True
    assert (reply.text, reply.unscored, reply.model_snapshot) == ("Hello.", None, "m-snapshot")
    assert samples(reply.audio) == (24_000, 1, PCM)
    assert reply.ttft_s is not None and reply.first_audio_s is not None and reply.total_s is not None
    assert 0 < reply.ttft_s <= reply.first_audio_s <= reply.total_s
    assert [(call.input_tokens, call.input_audio_tokens, call.output_tokens) for call in calls] == [(40, 32, 30)]


@pytest.mark.parametrize("sound", [PCM, as_wav(PCM)], ids=["samples", "a WAV file"])
def test_a_server_that_speaks_in_one_piece_is_understood(sound: bytes) -> None:
    message = {"audio": {"id": "a", "data": encoded(sound), "transcript": "Hello."}}
    with chat_server(Answer(None, message=message), streams=False) as server:
        reply, _ = reply_of(server)
    assert reply.text == "Hello."
    assert samples(reply.audio) == (24_000, 1, PCM)


def test_minutes_of_speech_in_one_piece_are_not_too_long() -> None:
    long = PCM * 300
    message = {"audio": {"data": encoded(long), "transcript": "Hello."}}
    with chat_server(Answer(None, message=message), streams=False) as server:
        reply, _ = reply_of(server)
    assert samples(reply.audio)[2] == long


def test_text_in_one_choice_and_sound_in_another_make_one_reply() -> None:
    """vLLM-Omni's way."""
    choices = [
        {"index": 0, "message": {"role": "assistant", "content": "Hello."}, "finish_reason": "stop"},
        {"index": 1, "message": {"role": "assistant", "content": None, "audio": {"data": encoded(PCM)}}},
    ]
    with chat_server(Answer(raw=json.dumps({"id": "c", "choices": choices}).encode()), streams=False) as server:
        reply, _ = reply_of(server)
    assert reply.text == "Hello."
    assert samples(reply.audio)[2] == PCM


@pytest.mark.parametrize("streams", [True, False])
def test_an_answer_in_text_is_tried_again_then_counted(streams: bool) -> None:
    with chat_server(Answer("Hello."), streams=streams) as server:
        reply, calls = reply_of(server, retries=2)
    assert (reply.text, reply.audio, reply.unscored) == (None, None, Unscored.NO_AUDIO)
    assert [call.error for call in calls] == [Unscored.NO_AUDIO] * 3
    answers = iter([Answer("Hello."), SPOKEN])
    with chat_server(lambda _: next(answers)) as server:
        reply, calls = reply_of(server)
    assert reply.text == "Hello."
    assert [call.error for call in calls] == [Unscored.NO_AUDIO, None]


@pytest.mark.parametrize("junk", [b"\x01\x02\x03\x04\x05\x06\x07", b"RIFF\x00\x00\x00\x00WAVEjunk"])
def test_bytes_that_are_no_sound_are_no_spoken_answer(junk: bytes) -> None:
    choice = {"message": {"content": None, "audio": {"transcript": "Hello.", "data": encoded(junk)}}}
    body = json.dumps({"id": "c", "choices": [{"index": 0, "finish_reason": "stop", **choice}]}).encode()
    with chat_server(Answer(raw=body), streams=False) as server:
        reply, _ = reply_of(server, retries=0)
    assert (reply.text, reply.audio, reply.unscored) == (None, None, Unscored.NO_AUDIO)
    assert reply.detail and "no sound" in reply.detail


def test_sound_that_is_cut_or_garbled_is_no_reply() -> None:
    garbled = stream({"audio": {"transcript": "Hello.", "data": "not base64!"}})
    cut = Answer(raw=(SPOKEN.raw or b"")[:600], headers=SPOKEN.headers, announces_length=False)
    for answer, reason in ((garbled, Unscored.UNREADABLE), (cut, Unscored.CONNECTION_CUT)):
        with chat_server(answer) as server:
            reply, _ = reply_of(server)
        assert (reply.text, reply.audio, reply.unscored) == (None, None, reason)


def test_output_and_voice_make_another_model_and_their_absence_none() -> None:
    def parameters(*spoken: SpokenOutput) -> dict[str, Any]:
        return open_system("litellm:openai/gpt-audio", {"seed": 1}, ChatOptions(), *spoken).identity.parameters

    assert parameters() == parameters(SpokenOutput()) == {"seed": 1}
    assert parameters(SpokenOutput("text")) == {"seed": 1, "output": "text"}
    assert parameters(SPEECH) == {"seed": 1, "output": "audio", "voice": "coral"}
    assert parameters(SpokenOutput("audio"))["voice"]


def test_text_that_is_asked_for_is_asked_of_the_server() -> None:
    with chat_server(Answer("Hello.")) as server:
        reply, _ = reply_of(server, SpokenOutput("text"))
    assert server.calls[0].body["modalities"] == ["text"]
    assert reply.text == "Hello."


@pytest.mark.parametrize("arguments", [{"modalities": ["text", "audio"]}, {"audio": {"voice": "x"}}])
def test_flags_and_not_arguments_ask_for_speech(arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="--output"):
        LiteLLMSystem("openai/gpt-audio", arguments, ChatOptions())


def test_a_realtime_models_flags_are_its_arguments() -> None:
    assert with_flags({}, SpokenOutput()) == ({}, "audio")
    assert with_flags({"speed": 1.2}, SpokenOutput("audio", "ash")) == ({"speed": 1.2, "voice": "ash"}, "audio")
    assert with_flags({"output": "text"}, SpokenOutput("text")) == ({}, "text")
    for arguments, spoken in (({"output": "text"}, SPEECH), ({"voice": "ash"}, SPEECH)):
        with pytest.raises(UsageError, match="contradict"):
            with_flags(arguments, spoken)


@dataclass
class Parrot:
    """A system that speaks, or fails to."""

    answer: ModelReply

    @property
    def identity(self) -> ModelIdentity:
        """Any."""
        return ModelIdentity("t", "a", "n", parameters={"output": "audio"})

    async def preflight(self) -> None:
        """Nothing to see."""

    async def reply(self, prompt: Prompt) -> ModelReply:
        """Its answer."""
        return self.answer

    async def close(self) -> None:
        """Nothing to close."""


@dataclass
class Scribe:
    """A transcriber that hears the length, or nothing."""

    unscored: Unscored | None = None
    closed: bool = False

    @property
    def identity(self) -> dict[str, Any]:
        """Any."""
        return {"target": "scribe"}

    async def preflight(self) -> None:
        """Nothing to see."""

    async def transcribe(self, wav: bytes) -> Transcription:
        """How many bytes it heard."""
        if self.unscored:
            return Transcription(None, self.unscored, "it hears nothing")
        return Transcription(f"{len(wav)} bytes")

    async def close(self) -> None:
        """Note it."""
        self.closed = True


def test_with_a_transcriber_what_it_hears_is_what_is_judged() -> None:
    spoken = ModelReply("The API's own.", audio=b"1234", finish_reason="stop", first_audio_s=0.5)
    system = Transcribed(Parrot(spoken), scribe := Scribe())
    reply = asyncio.run(system.reply(PROMPT))
    assert (reply.text, reply.audio, reply.first_audio_s) == ("4 bytes", b"1234", 0.5)
    assert system.identity.parameters == {"output": "audio", "transcriber": {"target": "scribe"}}
    asyncio.run(system.close())
    assert scribe.closed


def test_recorded_replies_may_be_spoken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "talk").mkdir()
    said, sung = tmp_path / "talk" / "c.flac", tmp_path / "talk" / "d.wav"
    said.write_bytes(tone(440, container="FLAC"))
    sung.write_bytes(tone(500, container="WAV"))
    rows = [
        {"id": "c", "response": "Said.", "audio": "talk/c.flac", "first_audio_s": 0.5},
        {"id": "d", "response": "Written."},
        {"id": "e"},
    ]
    file = write_jsonl(tmp_path / "replies.jsonl", rows)

    def asked(key: str, target: Path = file, spoken: SpokenOutput = UNSPOKEN) -> tuple[Any, ModelReply]:
        system = open_system(f"replay:{target}", {}, ChatOptions(), spoken)
        return system, asyncio.run(system.reply(Prompt(key, [])))

    system, reply = asked("c")
    assert (reply.text, (reply.audio or b"")[:4], reply.first_audio_s) == ("Said.", b"RIFF", 0.5)
    assert system.identity.parameters == {"output": "audio"}
    assert [asked(key)[1].audio for key in "de"] == [None, None]
    assert asked("c", spoken=SpokenOutput("text"))[1].audio is None
    earlier = system.identity.fingerprint
    here = Settings(home=tmp_path / "here", database=None, artifacts=str(tmp_path / "shared"))
    there = here.model_copy(update={"home": tmp_path / "there"})
    spec = dialogue_spec({"track": "audio-multichallenge", "data": "demo", "model": f"replay:{file}"}, "a test")
    travelled = laid_out(sent(spec, here, open_artifacts(here)), there)
    assert str(there.home) in travelled.model, "laid out in a home of its own"
    assert asked("c", Path(travelled.model.partition(":")[2]))[0].identity.fingerprint == earlier
    said.write_bytes(tone(441, container="FLAC"))
    assert asked("c")[0].identity.fingerprint != earlier, "what was said makes the run"
    late = asyncio.run(system.reply(Prompt("c", [])))
    assert (late.unscored, "has changed" in str(late.detail)) == (Unscored.NOT_RECORDED, True)

    with pytest.raises(UsageError, match=r"reply to 'c' is a recording.*--transcriber"):
        asked("c", tmp_path / "talk")
    monkeypatch.setattr(transcription, "open_transcriber", lambda *_: Scribe())
    written, reply = asked("d", tmp_path / "talk", SpokenOutput(transcriber="a:scribe"))
    assert reply.text == f"{len(sung.read_bytes())} bytes" and reply.audio == sung.read_bytes()
    assert isinstance(written, RecordedSystem) and written.conversations == {"c", "d"}


@pytest.mark.parametrize(
    ("named", "fault"),
    [("../up.wav", "is not in"), ("/etc/passwd", "is not in"), ("none.wav", "no recording"), ("a\0b", "not the path"),
     (5, "not the path"), ("", "not the path"), ("link", "is not in")],
)  # fmt: skip
def test_a_recording_of_a_reply_lies_in_the_files_folder(named: Any, fault: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "up.wav").write_bytes(tone(440, container="WAV"))
    (tmp_path / "in" / "link").symlink_to(tmp_path / "up.wav")
    file = write_jsonl(tmp_path / "in" / "replies.jsonl", [{"id": "c", "response": "x", "audio": named}])
    with pytest.raises(UsageError, match=f"reply to 'c'.*{fault}"):
        open_system(f"replay:{file}", {}, ChatOptions())


def test_a_recording_that_cannot_be_heard_leaves_its_reply_unscored(tmp_path: Path) -> None:
    (tmp_path / "c.wav").write_bytes(b"RIFF\x24\0\0\0WAVE")
    file = write_jsonl(tmp_path / "replies.jsonl", [{"id": "c", "response": "x", "audio": "c.wav"}])
    reply = asyncio.run(open_system(f"replay:{file}", {}, ChatOptions()).reply(PROMPT))
    assert (reply.text, reply.unscored) == (None, Unscored.NOT_RECORDED) and "recording" in str(reply.detail)


def test_a_transcriber_that_fails_leaves_the_reply_unscored_and_the_sound_kept() -> None:
    system = Transcribed(Parrot(ModelReply("Own.", audio=b"1234")), Scribe(Unscored.TIMEOUT))
    reply = asyncio.run(system.reply(PROMPT))
    assert (reply.text, reply.unscored, reply.audio) == (None, Unscored.TIMEOUT, b"1234")


def test_a_reply_that_failed_is_not_transcribed() -> None:
    failed = ModelReply(None, Unscored.NO_AUDIO, "no sound")
    assert asyncio.run(Transcribed(Parrot(failed), Scribe()).reply(PROMPT)) == failed


def test_a_transcriber_needs_no_transcript_of_the_servers() -> None:
    wordless = stream({"audio": {"data": encoded(PCM)}})
    with chat_server(wordless) as server:
        reply, _ = reply_of(server, retries=0)
        assert reply.unscored is Unscored.EMPTY
        reply, _ = reply_of(server, SpokenOutput("audio", None, "litellm:openai/whisper-1"))
    assert reply.unscored is None
    assert samples(reply.audio)[2] == PCM


def test_a_run_keeps_the_sound_and_judges_the_transcript(tmp_path: Path, program: Callable[..., Any]) -> None:
    data = write_parquet(tmp_path / "data.parquet", conversation_rows(2))
    with chat_server(SPOKEN) as server:
        done = program(
            "run", "audio-multichallenge", "--data", data, "--home", tmp_path / "home", "--no-hear",
            "--model", "litellm:openai/gpt-audio", "--api-base", server.base, "--output", "audio",
            "--judge", "checks",
        )  # fmt: skip
    assert done.code in (0, 3), done.err
    with sqlite3.connect(tmp_path / "home" / "vivace.db") as database:
        rows = database.execute("select text, audio_sha256, first_audio_s from reply").fetchall()
        [(parameters,)] = database.execute("select parameters from model").fetchall()
        tokens = database.execute("select input_audio_tokens from attempt where stage = 'generate'").fetchall()
    assert [text for text, _, _ in rows] == ["Hello.", "Hello."]
    assert all(first > 0 for _, _, first in rows)
    [stored] = (tmp_path / "home").rglob(f"{rows[0][1]}*")
    assert samples(stored.read_bytes())[2] == PCM
    assert json.loads(parameters)["output"] == "audio"
    assert tokens == [(32,), (32,)]
