"""The Realtime adapter against a server on loopback: what is asked, what comes back, and every way to fail."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import socket
import time
import wave
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import soxr

from support.realtime_server import PCM, Answer, Conversation, error_event, realtime_server
from vivace.audio.convert import EncodedAudio, encode_wav
from vivace.errors import UnreachableError, UsageError
from vivace.models.adapters import openai_realtime
from vivace.models.adapters.openai_realtime import OpenAIRealtimeSystem
from vivace.models.base import ModelReply, Prompt, SpokenTurn
from vivace.models.client.calls import CallRecord, ChatOptions, recorded_calls
from vivace.models.client.realtime import events as realtime_events
from vivace.models.client.tries import CONNECT_TRIES
from vivace_rubrics.criteria import Unscored

KEY = "sk-test-0123456789abcdef"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.delenv("OPENAI_API_BASE", raising=False)
    monkeypatch.setattr("vivace.models.client.tries.FIRST_WAIT_S", 0.01)
    monkeypatch.setattr("vivace.models.client.pacing.FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr("vivace.models.client.pacing.PATIENCE_S", 0.0)
    yield


def sound(seconds: float, rate: int = 16_000, pitch: float = 440.0, channels: int = 1) -> npt.NDArray[np.float64]:
    """A tone with some noise, as shape (frames, channels), every channel a little different."""
    time_s = np.arange(int(seconds * rate)) / rate
    noise = np.random.default_rng(int(pitch)).normal(scale=0.05, size=(len(time_s), channels))
    samples = 0.4 * np.sin(2 * np.pi * pitch * time_s)[:, None] + noise
    return np.rint(samples * 32768) / 32768


def spoken(samples: npt.NDArray[np.float64], rate: int = 16_000) -> SpokenTurn:
    """A user turn as the dialogue track hands it over."""
    return SpokenTurn(EncodedAudio(encode_wav(samples, rate), "wav"), None)


def hello() -> Prompt:
    """The smallest conversation."""
    return Prompt("c1", [(spoken(sound(0.2)), None)])


def ask(
    base: str, prompt: Prompt | None = None, *, retries: int = 0, timeout_s: float = 10.0, **named: Any
) -> tuple[ModelReply, list[CallRecord]]:
    """One reply, with the calls it took."""

    async def run() -> ModelReply:
        system = OpenAIRealtimeSystem(
            "gpt-realtime", named.pop("arguments", {}), ChatOptions(base, timeout_s, retries), **named
        )
        try:
            return await system.reply(prompt or hello())
        finally:
            await system.close()

    with recorded_calls() as calls:
        return asyncio.run(run()), calls


def preflight(base: str | None, **arguments: Any) -> None:
    """Only the check before a run."""

    async def run() -> None:
        system = OpenAIRealtimeSystem("gpt-realtime", arguments, ChatOptions(base))
        try:
            await system.preflight()
        finally:
            await system.close()

    asyncio.run(run())


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def samples_of(pcm: str | bytes) -> npt.NDArray[np.int32]:
    """16-bit samples, wide enough to subtract."""
    assert isinstance(pcm, bytes)
    return np.frombuffer(pcm, "<i2").astype(np.int32)


def resampled(samples: npt.NDArray[np.float64], rate: int) -> npt.NDArray[np.int32]:
    """What the API ought to be sent: channels averaged, soxr HQ to 24 kHz, 16 bits."""
    mono = soxr.resample(samples.mean(axis=1), rate, 24_000, quality="HQ")
    return np.asarray(np.clip(np.rint(mono * 32768), -32768, 32767), dtype=np.int32)


def test_a_conversation_is_put_item_by_item() -> None:
    first, second, third = sound(0.5), sound(0.3, pitch=880), sound(0.4, pitch=220)
    prompt = Prompt(
        "c1", [(spoken(first), "Hello, Anna."), (spoken(second), None), (spoken(third), None)]
    )  # the second turn's answer is lacking in the data
    with realtime_server() as server:
        reply, _ = ask(server.base, prompt)
    (conversation,) = server.conversations
    kinds = ["session.update", *["conversation.item.create"] * 4, "response.create"]
    assert conversation.kinds == kinds
    assert [(role, kind) for role, kind, _ in conversation.items] == [
        ("user", "input_audio"),
        ("assistant", "output_text"),
        ("user", "input_audio"),
        ("user", "input_audio"),
    ]
    assert conversation.items[1][2] == "Hello, Anna."
    for place, samples in ((0, first), (2, second), (3, third)):
        sent, direct = samples_of(conversation.items[place][2]), resampled(samples, 16_000)
        assert len(sent) == len(direct)
        assert np.abs(sent - direct).max() <= 1
    assert reply.text == "Hello there."
    assert conversation.path == "/v1/realtime?model=gpt-realtime"
    assert conversation.headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(("rate", "channels"), [(48_000, 2), (44_100, 1), (24_000, 1)])
def test_original_recordings_are_resampled_once(rate: int, channels: int) -> None:
    samples = sound(0.3, rate, channels=channels)
    with realtime_server() as server:
        ask(server.base, Prompt("c1", [(spoken(samples, rate), None)]))
    sent = samples_of(server.conversations[0].items[0][2])
    assert np.abs(sent - resampled(samples, rate)).max() <= 1


def test_an_mp3_is_decoded() -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, sound(0.5, 24_000), 24_000, format="MP3")
    turn = SpokenTurn(EncodedAudio(buffer.getvalue(), "mp3"), None)
    with realtime_server() as server:
        ask(server.base, Prompt("c1", [(turn, None)]))
    sent = samples_of(server.conversations[0].items[0][2])
    decoded, _ = soundfile.read(io.BytesIO(buffer.getvalue()), always_2d=True)
    assert np.abs(sent - resampled(decoded, 24_000)).max() <= 1


def test_a_recording_above_the_event_limit_goes_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(realtime_events, "PIECE_BYTES", 10_000)
    long, short = sound(1.0), sound(0.1)
    with realtime_server() as server:
        reply, _ = ask(server.base, Prompt("c1", [(spoken(long), "Yes."), (spoken(short), None)]))
    (conversation,) = server.conversations
    appends = ["input_audio_buffer.append"] * 5
    items = ["conversation.item.create"] * 2
    assert conversation.kinds == [
        "session.update", *appends, "input_audio_buffer.commit", *items, "response.create"
    ]  # fmt: skip
    assert np.abs(samples_of(conversation.items[0][2]) - resampled(long, 16_000)).max() <= 1
    assert reply.text == "Hello there."


def test_a_long_conversation_gets_through() -> None:
    turns = [(spoken(sound(30.0, pitch=300 + place)), "Go on.") for place in range(8)]
    with realtime_server() as server:
        reply, _ = ask(server.base, Prompt("c1", [*turns, (spoken(sound(1.0)), None)]))
    assert reply.text == "Hello there."
    assert len(server.conversations[0].items) == 17


def test_transcripts_go_as_text() -> None:
    prompt = Prompt("c1", [(SpokenTurn(None, "My name is Anna."), "Hello."), (SpokenTurn(None, "Who am I?"), None)])
    with realtime_server() as server:
        ask(server.base, prompt)
    assert server.conversations[0].items == [
        ("user", "input_text", "My name is Anna."),
        ("assistant", "output_text", "Hello."),
        ("user", "input_text", "Who am I?"),
    ]


def test_the_session_has_no_turn_detection_and_no_system_prompt() -> None:
    with realtime_server() as server:
        ask(server.base)
    (conversation,) = server.conversations
    assert conversation.session["instructions"] == ""
    assert conversation.session["audio"]["input"]["turn_detection"] is None
    assert conversation.session["audio"]["input"]["format"] == {"type": "audio/pcm", "rate": 24_000}
    assert conversation.session["output_modalities"] == ["audio"]
    assert conversation.session["audio"]["output"]["voice"] == "marin"
    assert conversation.session["truncation"] == "disabled"
    assert conversation.received[-1] == {"type": "response.create"}
    assert "tools" not in conversation.session
    assert all(role != "system" for role, _, _ in conversation.items)


def test_parameters_reach_the_session() -> None:
    arguments = {"voice": "cedar", "speed": 1.2, "max_output_tokens": 400, "reasoning": {"effort": "low"}}
    with realtime_server() as server:
        ask(server.base, arguments=arguments)
    session = server.conversations[0].session
    assert session["audio"]["output"] == {
        "format": {"type": "audio/pcm", "rate": 24_000}, "voice": "cedar", "speed": 1.2
    }  # fmt: skip
    assert session["max_output_tokens"] == 400
    assert session["reasoning"] == {"effort": "low"}
    assert "voice" not in session


def test_sound_transcript_and_times_come_back() -> None:
    details = {"type": "completed"}
    with realtime_server(Answer("My transcript.", details=details)) as server:
        reply, (call,) = ask(server.base)
    assert reply.text == "My transcript."
    assert reply.unscored is None
    assert reply.audio is not None
    with wave.open(io.BytesIO(reply.audio)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (24_000, 1, 2)
        assert file.readframes(file.getnframes()) == PCM
    assert reply.model_snapshot == "gpt-realtime-snapshot"
    assert reply.finish_reason == "completed"
    assert reply.ttft_s is not None and reply.first_audio_s is not None and reply.total_s is not None
    assert 0 < reply.ttft_s <= reply.first_audio_s <= reply.total_s <= call.seconds
    assert (call.input_tokens, call.output_tokens, call.error) == (11, 7, None)


def test_tokens_of_audio_are_counted_apart() -> None:
    usage = {"input_tokens": 11, "output_tokens": 7, "input_token_details": {"audio_tokens": 9, "text_tokens": 2}}
    done = {"type": "response.done", "response": {"status": "completed", "usage": usage}}
    place = {"item_id": "i", "content_index": 0}
    sound = {"type": "response.output_audio.delta", "delta": base64.b64encode(PCM).decode(), **place}
    words = {"type": "response.output_audio_transcript.delta", "delta": "Hello.", **place}
    with realtime_server(Answer(raw=[json.dumps(event) for event in (sound, words, done)])) as server:
        reply, [call] = ask(server.base)
    assert reply.text == "Hello."
    assert (call.input_tokens, call.input_audio_tokens, call.output_tokens) == (11, 9, 7)
    assert call.cost_usd == pytest.approx(2 * 4e-6 + 9 * 3.2e-5 + 7 * 1.6e-5)


def test_a_transcriber_needs_no_transcript_of_the_models() -> None:
    with realtime_server(Answer(" ")) as server:
        reply, _ = ask(server.base, is_transcribed=True)
    assert reply.unscored is None
    assert reply.audio


def test_a_reply_of_two_parts_keeps_them_apart() -> None:
    def delta(item: str, text: str) -> str:
        kind = "response.output_text.delta"
        return json.dumps({"type": kind, "item_id": item, "content_index": 0, "delta": text})

    done = json.dumps({"type": "response.done", "response": {"status": "completed"}})
    raw = [delta("one", "One mo"), delta("one", "ment."), delta("two", "Anna."), done]
    with realtime_server(Answer(raw=raw)) as server:
        reply, _ = ask(server.base, output="text")
    assert reply.text == "One moment.\nAnna."


def test_text_is_what_a_text_run_gets() -> None:
    with realtime_server(Answer("Written.", audio=None)) as server:
        reply, _ = ask(server.base, output="text")
    assert (reply.text, reply.audio, reply.first_audio_s) == ("Written.", None, None)
    session = server.conversations[0].session
    assert session["output_modalities"] == ["text"]
    assert server.conversations[0].received[0]["session"]["audio"]["output"] == {
        "format": {"type": "audio/pcm", "rate": 24_000}
    }


def test_bytes_that_are_no_sound_are_no_spoken_answer() -> None:
    with realtime_server(Answer("Hello.", audio=b"\x01\x02\x03\x04\x05\x06\x07")) as server:
        reply, _ = ask(server.base, retries=0)
    assert (reply.text, reply.audio, reply.unscored) == (None, None, Unscored.NO_AUDIO)


def test_an_answer_in_text_is_tried_again_then_counted() -> None:
    def once_in_text(_: Conversation) -> Answer:
        return Answer("Only text.", audio=None if len(server.conversations) == 1 else PCM)

    with realtime_server(once_in_text) as server:
        reply, calls = ask(server.base, retries=3)
    assert reply.text == "Only text." and reply.audio is not None
    assert [call.error for call in calls] == [Unscored.NO_AUDIO, None]
    assert [call.output_tokens for call in calls] == [7, 7]

    with realtime_server(Answer("Only text.", audio=None)) as server:
        reply, calls = ask(server.base, retries=2)
    assert (reply.text, reply.unscored) == (None, Unscored.NO_AUDIO)
    assert [call.error for call in calls] == [Unscored.NO_AUDIO] * 3
    assert len(server.conversations) == 3


FAILURES = {
    "rate limit": (
        Answer(raw=[error_event("invalid_request_error", "rate_limit_exceeded", "Too fast.")]),
        Unscored.RATE_LIMITED,
    ),
    "server error": (Answer(raw=[error_event("server_error", None, "It broke.")]), Unscored.SERVER_ERROR),
    "failed for its limit": (
        Answer("", None, "failed", {"type": "failed", "error": {"type": "tokens", "code": "rate_limit_exceeded"}}),
        Unscored.RATE_LIMITED,
    ),
    "failed": (Answer("Hel", status="failed"), Unscored.SERVER_ERROR),
    "cancelled": (Answer("Hel", status="cancelled"), Unscored.SERVER_ERROR),
    "cut at once": (Answer(cut_after=0), Unscored.CONNECTION_CUT),
    "cut in the middle": (Answer(cut_after=4), Unscored.CONNECTION_CUT),
    "closed politely in the middle": (
        Answer(raw=['{"type": "response.created", "response": {}}'], close=(1000, "bye")),
        Unscored.CONNECTION_CUT,
    ),
    "closed for its limit": (
        Answer(raw=[], close=(4000, "requests.rate_limit_exceeded")),
        Unscored.RATE_LIMITED,
    ),
    "silent": (Answer(raw=[]), Unscored.TIMEOUT),
    "silent after a few events": (Answer(raw=['{"type": "response.created", "response": {}}']), Unscored.TIMEOUT),
    "deaf": (Answer(raw=[], deaf=True), Unscored.TIMEOUT),
    "empty": (Answer("", audio=None), Unscored.EMPTY),
    "sound without a transcript": (Answer(" "), Unscored.EMPTY),
    "not JSON": (Answer(raw=["<html>"]), Unscored.UNREADABLE),
    "not an event": (Answer(raw=["[1]"]), Unscored.UNREADABLE),
    "an end that is none": (Answer(raw=['{"type": "response.done", "response": "x"}']), Unscored.UNREADABLE),
    "an end with odd parts": (
        Answer(raw=['{"type": "response.done", "response": {"status": "completed", "usage": 5}}']),
        Unscored.UNREADABLE,
    ),
    "an error with odd parts": (
        Answer(raw=['{"type": "error", "error": {"type": {}, "code": 7, "message": []}}']),
        Unscored.SERVER_ERROR,
    ),
    "not base64": (Answer(raw=['{"type": "response.output_audio.delta", "delta": "%%"}']), Unscored.UNREADABLE),
}


@pytest.mark.parametrize("name", FAILURES)
def test_what_another_try_may_mend_is_tried_again(name: str) -> None:
    failure, reason = FAILURES[name]
    with realtime_server(failure) as server:
        reply, calls = ask(server.base, retries=2, timeout_s=0.6)
    assert (reply.text, reply.audio, reply.unscored) == (None, None, reason)
    assert reply.detail
    assert [call.error for call in calls] == [reason] * 3
    assert len(server.conversations) == 3

    with realtime_server(lambda _: failure if len(server.conversations) == 1 else Answer()) as server:
        reply, calls = ask(server.base, retries=2, timeout_s=0.6)
    assert reply.text == "Hello there."
    assert [call.error for call in calls] == [reason, None]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (
            Answer("Ser", status="incomplete", details={"type": "incomplete", "reason": "content_filter"}),
            Unscored.CONTENT_FILTER,
        ),
        (
            Answer(raw=[error_event("invalid_request_error", "content_policy_violation", "No.")]),
            Unscored.CONTENT_FILTER,
        ),
        (Answer(raw=[error_event("invalid_request_error", "invalid_value", "Too long.")]), Unscored.BAD_REQUEST),
        (Answer("x" * 1_000_001), Unscored.TOO_LONG),
    ],
)
def test_what_would_come_again_is_asked_once(answer: Answer, reason: Unscored) -> None:
    if reason is Unscored.TOO_LONG:
        piece = {"type": "response.output_audio_transcript.delta", "item_id": "i", "content_index": 0}
        answer = Answer(raw=[json.dumps({**piece, "delta": answer.text})])
    with realtime_server(answer) as server:
        reply, calls = ask(server.base, retries=3)
    assert (reply.text, reply.unscored) == (None, reason)
    assert len(calls) == len(server.conversations) == 1


def test_an_answer_at_its_token_limit_is_kept() -> None:
    details = {"type": "incomplete", "reason": "max_output_tokens"}
    with realtime_server(Answer("Cut sh", status="incomplete", details=details)) as server:
        reply, calls = ask(server.base)
    assert (reply.text, reply.unscored, reply.finish_reason) == ("Cut sh", None, "max_output_tokens")
    assert reply.audio is not None
    assert calls[0].error is None


def test_a_complete_reply_survives_a_server_that_never_says_goodbye() -> None:
    with realtime_server(Answer(deaf=True)) as server:
        reply, (call,) = ask(server.base, timeout_s=3.0)
    assert reply.text == "Hello there."
    assert reply.total_s is not None and reply.total_s < 3.0
    assert call.seconds < 30


def test_the_timeout_covers_the_whole_try() -> None:
    with realtime_server(Answer(raw=[], deaf=True)) as server:
        reply, (call,) = ask(server.base, timeout_s=0.5)
    assert reply.unscored is Unscored.TIMEOUT
    assert 0.5 <= call.seconds < 30


def test_a_server_says_how_long_to_wait() -> None:
    limit = error_event("tokens", "rate_limit_exceeded", "Rate limit reached. Please try again in 700ms.")

    def limited_once(_: Conversation) -> Answer:
        return Answer(raw=[limit]) if len(server.conversations) == 1 else Answer()

    start = time.perf_counter()
    with realtime_server(limited_once) as server:
        reply, _ = ask(server.base, retries=1)
    assert reply.text == "Hello there."
    assert time.perf_counter() - start >= 0.7


@pytest.mark.parametrize("code", ["invalid_model", "model_not_found"])
@pytest.mark.parametrize("how", ["event", "response", "close"])
def test_an_unknown_model_stops_the_run(code: str, how: str) -> None:
    kind, message = "invalid_request_error", "The model does not exist."
    error = {"type": kind, "code": code, "message": message}
    answers = {
        "event": Answer(raw=[error_event(kind, code, message)]),
        "response": Answer("", None, "failed", {"type": "failed", "error": error}),
        "close": Answer(raw=[], close=(4000, f"invalid_request_error.{code}")),
    }
    with realtime_server(answers[how]) as server, pytest.raises(UsageError, match="'gpt-realtime' does not know it"):
        ask(server.base, retries=3)
    assert len(server.conversations) == 1


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_stops_the_run_and_is_not_shown(status: int) -> None:
    body = json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}", "code": None}})
    for attempt in (ask, preflight):
        with realtime_server(refuse={"status": status, "body": body}) as server, pytest.raises(UsageError) as caught:
            attempt(server.base)
        assert "refuses the key" in str(caught.value)
        assert KEY not in str(caught.value)
        assert caught.value.__context__ is None


def test_keys_are_in_no_detail() -> None:
    with realtime_server(Answer(raw=[error_event("server_error", None, f"Broken for {KEY}.")])) as server:
        reply, (call,) = ask(server.base)
    assert reply.detail is not None and call.detail is not None
    assert KEY not in reply.detail + call.detail
    assert "Broken for" in reply.detail


@pytest.mark.parametrize(
    ("status", "reason"), [(429, Unscored.RATE_LIMITED), (500, Unscored.SERVER_ERROR), (503, Unscored.SERVER_ERROR)]
)
def test_a_busy_server_at_the_handshake_is_tried_again(status: int, reason: Unscored) -> None:
    with realtime_server(refuse={"status": status, "headers": {"retry-after": "0.2"}}) as server:
        start = time.perf_counter()
        reply, calls = ask(server.base, retries=1)
        seconds = time.perf_counter() - start
        preflight(server.base)  # it may be there again when it is needed
    assert reply.unscored is reason
    assert f"HTTP {status}" in (reply.detail or "")
    assert [call.error for call in calls] == [reason] * 2
    assert seconds >= 0.2


@pytest.mark.parametrize("status", [200, 404])
def test_an_address_without_the_api_is_the_users_to_mend(status: int) -> None:
    with realtime_server(refuse={"status": status}) as server:
        for attempt in (ask, preflight):
            with pytest.raises(UsageError, match="check the name and the address"):
                attempt(server.base)


@pytest.mark.parametrize("attempt", [ask, preflight])
def test_nothing_listening_is_unreachable(attempt: Any) -> None:
    base = f"http://127.0.0.1:{free_port()}/v1"
    with pytest.raises(UnreachableError, match="start the server or check the address"):
        attempt(base)


def test_a_server_that_went_away_is_tried_for_longer() -> None:
    async def run(system: OpenAIRealtimeSystem) -> None:
        await system.reply(hello())
        server.stop()
        await system.reply(hello())

    with realtime_server() as server:
        system = OpenAIRealtimeSystem("gpt-realtime", {}, ChatOptions(server.base))
        with recorded_calls() as calls, pytest.raises(UnreachableError):
            asyncio.run(run(system))
    assert [call.error for call in calls] == [None, *[Unscored.CONNECTION_CUT] * CONNECT_TRIES]


def test_a_listener_that_never_answers_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_realtime, "PREFLIGHT_TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        base = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        with pytest.raises(UnreachableError, match="no answer in time"):
            preflight(base)
        with pytest.raises(UnreachableError, match="no answer in time"):
            ask(base, timeout_s=0.3)


def test_preflight_opens_a_session_and_asks_nothing() -> None:
    with realtime_server() as server:
        preflight(server.base)
    assert server.conversations[0].kinds == ["session.update"]


def test_refused_parameters_stop_the_run_before_any_work() -> None:
    refusal = error_event("invalid_request_error", "unknown_parameter", "Unknown parameter: 'session.temperatur'.")
    with realtime_server(refuse_session=refusal) as server:
        with pytest.raises(UsageError, match=r"does not take these parameters: .*session\.temperatur"):
            preflight(server.base, temperatur=1)
        with pytest.raises(UsageError, match="does not take these parameters"):
            ask(server.base, arguments={"temperatur": 1})
    assert all(conversation.kinds == ["session.update"] for conversation in server.conversations)


def test_a_key_is_needed_for_openai_but_not_for_a_server_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(UsageError, match="needs OPENAI_API_KEY"):
        preflight(None)
    with realtime_server() as server:
        preflight(server.base)
    assert server.conversations[0].headers["authorization"] == "Bearer none"


def test_a_server_of_ones_own_can_be_named_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with realtime_server() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base)
        preflight(None)
        system = OpenAIRealtimeSystem("gpt-realtime", {}, ChatOptions())
    assert system.identity.address == server.base
    assert len(server.conversations) == 1


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ("ftp://x/v1", "not an HTTP URL"),
        ("nonsense", "not an HTTP URL"),
        ("http://user:secret@host/v1", "carries a password"),
        ("http://host/v1?key=secret", "carries a password"),
    ],
)
def test_addresses_are_checked(base: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        OpenAIRealtimeSystem("gpt-realtime", {}, ChatOptions(base))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["instructions", "tools", "model", "output_modalities", "audio", "truncation"])
def test_reserved_arguments_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"cannot set '{name}'"):
        OpenAIRealtimeSystem("gpt-realtime", {name: "x"}, ChatOptions())


def test_a_voice_is_refused_for_an_answer_in_text() -> None:
    with pytest.raises(UsageError, match="spoken reply"):
        OpenAIRealtimeSystem("gpt-realtime", {"voice": "cedar"}, ChatOptions(), output="text")


def test_an_unknown_output_is_refused() -> None:
    output: Any = "video"
    with pytest.raises(UsageError, match="answers in audio or text, not in 'video'"):
        OpenAIRealtimeSystem("gpt-realtime", {}, ChatOptions(), output)


def test_the_identity_names_output_and_voice() -> None:
    options = ChatOptions()
    spoken_identity = OpenAIRealtimeSystem("gpt-realtime", {}, options).identity
    assert spoken_identity.target == "openai-realtime:gpt-realtime"
    assert spoken_identity.address is None
    assert spoken_identity.parameters == {"output": "audio", "voice": "marin"}
    written = OpenAIRealtimeSystem("gpt-realtime", {}, options, output="text").identity
    assert written.parameters == {"output": "text"}
    cedar = OpenAIRealtimeSystem("gpt-realtime", {"voice": "cedar"}, options).identity
    named = OpenAIRealtimeSystem("gpt-realtime", {"voice": "marin"}, ChatOptions(timeout_s=1, retries=0)).identity
    assert len({spoken_identity.fingerprint, written.fingerprint, cedar.fingerprint}) == 3
    assert named.fingerprint == spoken_identity.fingerprint
