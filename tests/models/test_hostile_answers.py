"""Answers that mislead, fill memory or lead astray cost their own call; refusals of every call end the run."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from support.chat_server import Answer, ChatServer, chat_server, verdict
from support.realtime_server import Answer as RealtimeAnswer
from support.realtime_server import realtime_server
from vivace.errors import IncompleteError, UsageError, VivaceError
from vivace.models.adapters.litellm import LiteLLMAsker, LiteLLMSystem
from vivace.models.adapters.openai_realtime import OpenAIRealtimeSystem
from vivace.models.base import ModelReply, Prompt, SpokenTurn
from vivace.models.client import pacing, transport, tries
from vivace.models.client.calls import ChatOptions
from vivace.models.client.providers.refusals import MOST_IN_A_ROW, refused_parameter
from vivace.models.client.realtime import session as realtime_session
from vivace_rubrics.criteria import Unscored, Verdict

PROMPT = Prompt("c", [(SpokenTurn(None, "hello"), None)])
STREAM = {"content-type": "text/event-stream"}
HOUR = {"retry-after": "3600"}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tries, "FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(pacing, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(pacing, "LONGEST_OWN_PAUSE_S", 0.004)


def replies_of(server: ChatServer, count: int = 1, *, retries: int = 0, **arguments: Any) -> list[Any]:
    """So many replies one after the other; where one ends the run, the error stands last."""

    async def ask() -> list[ModelReply | VivaceError]:
        system = LiteLLMSystem("openai/m", arguments, ChatOptions(server.base, 20.0, retries))
        replies: list[ModelReply | VivaceError] = []
        try:
            for _ in range(count):
                replies.append(await system.reply(PROMPT))
        except VivaceError as error:
            replies.append(error)
        finally:
            await system.close()
        return replies

    return asyncio.run(ask())


def verdict_from(server: ChatServer, **arguments: Any) -> str | Verdict:
    async def ask() -> str | Verdict:
        asker = LiteLLMAsker("openai/j", arguments, ChatOptions(server.base, 20.0, 0))
        try:
            return await asker.ask("Is it met?")
        finally:
            await asker.close()

    return asyncio.run(ask())


def whole(*texts: str | None) -> bytes:
    choices = [{"index": place, "message": {"content": text}} for place, text in enumerate(texts)]
    return json.dumps({"choices": choices}).encode()


def streamed(*events: str) -> Answer:
    return Answer(raw="".join(f"data: {event}\n\n" for event in (*events, "[DONE]")).encode(), headers=STREAM)


def delta(text: str, place: int = 0) -> str:
    return json.dumps({"choices": [{"index": place, "delta": {"content": text}}]})


# What says two things


@pytest.mark.parametrize(
    "answer",
    [
        Answer(raw=whole("Yes.", "No.")),
        Answer(raw=b'{"choices": [{"message": {"content": "Yes."}}], "choices": [{"message": {"content": "No."}}]}'),
        Answer(raw=b'{"choices": [{"message": {"content": "Yes.", "content": "No."}}]}'),
        Answer(raw=b'{"choices": [{"message": {"content": "Yes."}}, {"message": {"refusal": "No."}}]}'),
        streamed(delta("Yes."), delta("No.", 1)),
        streamed('{"choices": [{"delta": {"content": "Yes."}}], "choices": [{"delta": {"content": "No."}}]}'),
        streamed('{"choices": [{"delta": {"content": "Yes.", "content": "No."}}]}'),
        streamed(delta("Yes."), '{"choices": [{"index": 1, "delta": {"refusal": "No."}}]}'),
    ],
    ids=["choices", "doubled choices", "doubled content", "refusal", "streamed choices", "streamed doubled choices",
         "streamed doubled content", "streamed refusal"],
)  # fmt: skip
def test_an_answer_that_says_two_things_is_unreadable(answer: Answer) -> None:
    with chat_server(answer) as server:
        [reply] = replies_of(server)
    assert (reply.text, reply.unscored) == (None, Unscored.UNREADABLE)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(raw=whole("Yes.", "Yes.")),
        Answer(raw=whole(None, "Yes.", "")),
        streamed(delta("Y"), delta("Y", 1), delta("es.", 1), delta("es.")),
        streamed(delta(""), delta("Yes.", 2)),
    ],
    ids=["alike", "one that speaks", "streamed alike", "streamed one that speaks"],
)
def test_choices_that_say_the_same_are_one_answer(answer: Answer) -> None:
    with chat_server(answer) as server:
        assert [reply.text for reply in replies_of(server)] == ["Yes."]


# What fills memory


def packed(content: bytes, form: str) -> bytes:
    return gzip.compress(content) if form == "gzip" else zlib.compress(content)


@pytest.mark.parametrize("form", ["gzip", "deflate"])
@pytest.mark.parametrize("kind", ["whole", "stream", "error"])
def test_what_is_unpacked_is_bounded(form: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "STREAM_LIMIT", 4_000_000)
    bomb = packed(b"data: " + bytes(40_000_000), form)
    headers = {"content-encoding": form, **(STREAM if kind == "stream" else {})}
    answer = Answer(raw=bomb, headers=headers, status=500 if kind == "error" else 200)
    with chat_server(answer) as server:
        tracemalloc.start()
        [reply] = replies_of(server)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert (reply.text, reply.unscored) == (None, Unscored.TOO_LONG)
    assert peak < 20_000_000


@pytest.mark.parametrize("form", ["gzip", "x-gzip", "deflate", "identity"])
@pytest.mark.parametrize("streams", [True, False])
def test_a_packed_answer_is_read_all_the_same(form: str, streams: bool) -> None:
    content = (streamed(delta("Yes." * 50_000)).raw or b"") if streams else whole("Yes." * 50_000)
    raw = content if form == "identity" else packed(content, form.removeprefix("x-"))
    headers = {"content-encoding": form, **(STREAM if streams else {})}
    with chat_server(Answer(raw=raw, headers=headers)) as server:
        assert [reply.text for reply in replies_of(server)] == ["Yes." * 50_000]


@pytest.mark.parametrize(
    ("form", "raw"),
    [("br", b"\x8b\x00\x80{}\x03"), ("zstd", b"(\xb5/\xfd"), ("gzip, gzip", gzip.compress(gzip.compress(b"{}"))),
     ("gzip", b"{}"), ("deflate", b"\xff\xff"), ("\x1b]0;x", b"{}")],
    ids=["brotli", "zstandard", "twice", "not packed", "damaged", "nonsense"],
)  # fmt: skip
def test_what_cannot_be_unpacked_is_unreadable(form: str, raw: bytes) -> None:
    with chat_server(Answer(raw=raw, headers={"content-encoding": form})) as server:
        [reply] = replies_of(server)
    assert (reply.text, reply.unscored) in {(None, Unscored.UNREADABLE), (None, Unscored.CONNECTION_CUT)}


@pytest.mark.parametrize("endless", [b"x" * 65_536, b": x\n" * 16_384, b"data: {}\n" * 8_192])
def test_an_endless_stream_is_too_long(endless: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "STREAM_LIMIT", 2_000_000)
    with chat_server(Answer(raw=b"\n", headers=STREAM, endless=endless)) as server:
        [reply] = replies_of(server)
    assert reply.unscored is Unscored.TOO_LONG


def test_a_line_of_a_stream_is_no_longer_than_an_answer() -> None:
    with chat_server(Answer(raw=b"data: ", headers=STREAM, endless=b"x" * 262_144)) as server:
        tracemalloc.start()
        [reply] = replies_of(server)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert reply.unscored is Unscored.TOO_LONG
    assert peak < 5 * transport.ANSWER_LIMIT


# Where a server points


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_a_fault_of_the_address(status: int) -> None:
    with chat_server() as other:
        location = other.base.replace("//", "//user:secret@") + "/chat/completions?key=secret#secret"
        with chat_server(Answer(status=status, headers={"location": location})) as server:
            [error] = replies_of(server, retries=3)
            with pytest.raises(UsageError, match="--judge-api-base"):
                verdict_from(server)
    assert isinstance(error, UsageError)
    assert f"points to '{other.base}'" in str(error) and "--api-base" in str(error)
    assert "secret" not in str(error)
    assert (len(server.calls), len(other.calls)) == (2, 0)


@pytest.mark.parametrize("location", ["http://[", "\x1b]0;x\x07", "http://h/\x9b31m", "x" * 5000, "//", "data:,x"])
def test_whatever_a_redirect_says_is_a_sentence(location: str) -> None:
    with chat_server(Answer(status=302, headers={"location": location})) as server:
        [reply] = replies_of(server)
    text = str(reply.detail if isinstance(reply, ModelReply) else reply)
    assert text.isprintable() and len(text) < 700


@pytest.mark.parametrize("status", [300, 302, 304])
def test_a_server_that_points_nowhere_fails_its_call(status: int) -> None:
    with chat_server(Answer(status=status, raw=b"")) as server:
        [reply] = replies_of(server)
    assert reply.unscored is Unscored.BAD_REQUEST
    assert reply.detail == f"HTTP {status}: no reason given"


def test_the_realtime_adapter_follows_no_redirect() -> None:
    refuse = {"status": 307, "headers": {"Location": "ws://user:secret@127.0.0.1:9/v1?key=secret"}}
    with realtime_server(refuse=refuse) as server:
        system = OpenAIRealtimeSystem("m", {}, ChatOptions(server.base, 5.0, 0), "text")
        with pytest.raises(UsageError, match=r"points to 'ws://127\.0\.0\.1:9/v1'"):
            asyncio.run(system.reply(PROMPT))
        with pytest.raises(UsageError, match="points to"):
            asyncio.run(system.preflight())
    assert len(server.conversations) == 2


def test_an_event_of_the_realtime_adapter_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(realtime_session.CONNECTION, "max_size", 10_000)
    piece = {"type": "response.output_text.delta", "item_id": "i", "content_index": 0, "delta": "x" * 20_000}
    with realtime_server(RealtimeAnswer(raw=[json.dumps(piece)])) as server:
        system = OpenAIRealtimeSystem("m", {}, ChatOptions(server.base, 5.0, 2), "text")
        reply = asyncio.run(system.reply(PROMPT))
    assert reply.unscored is Unscored.TOO_LONG
    assert len(server.conversations) == 1


# What every call would be refused for


def refusal(message: str, status: int = 400, code: str | None = None) -> Answer:
    return Answer(status=status, raw=json.dumps({"error": {"message": message, "code": code}}).encode())


@pytest.mark.parametrize(
    ("message", "arguments", "remedy"),
    [
        ("response_format type json_schema is not available", {}, "--judge-arg response_format=null"),
        ("This response_format type is unavailable now", {}, "'response_format={\"type\": \"json_object\"}'"),
        ("Invalid schema: json_schema is not supported", {}, "--judge-arg response_format=null"),
        ("This model does not support structured outputs.", {}, "--judge-arg response_format=null"),
        ("The response format is not known here", {}, "--judge-arg response_format=null"),
        ("'temperature' does not support 0 with this model", {"temperature": 0}, "leave out --judge-arg temperature"),
        ("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.", {"max_tokens": 9},
         "--judge-arg max_completion_tokens=…"),
        ("Extra inputs are not permitted: `top_k`", {"extra_body": {"top_k": 3}}, "leave out --judge-arg top_k"),
    ],
)  # fmt: skip
def test_a_parameter_that_is_refused_stops_at_the_first_call(
    message: str, arguments: dict[str, Any], remedy: str
) -> None:
    with chat_server(refusal(message)) as server, pytest.raises(UsageError) as raised:
        verdict_from(server, **arguments)
    assert remedy in str(raised.value) and message in str(raised.value)
    assert len(server.calls) == 1
    if arguments:
        with chat_server(refusal(message)) as server:
            [error] = replies_of(server, 3, **arguments)
        assert remedy.replace("--judge-arg", "--model-arg") in str(error)


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 8192 tokens, reduce max_tokens",
        "'max_tokens' is too large",
        "Roles must stop alternating",
        "max_tokens_per_minute",
        "bad request",
    ],
)
def test_a_request_that_is_refused_for_itself_names_no_parameter(message: str) -> None:
    assert refused_parameter(["max_tokens", "stop", "temperature"], message) is None


def test_a_parameter_set_to_null_is_not_sent() -> None:
    with chat_server(verdict()) as server:
        verdict_from(server, response_format=None)
        replies_of(server, temperature=None, extra_body={"top_k": None, "top_p": 1})
    assert [sorted(call.body) for call in server.calls] == [
        ["messages", "model"],
        ["messages", "model", "stream", "stream_options", "top_p"],
    ]


def test_a_server_that_refuses_everything_is_not_asked_for_ever() -> None:
    with chat_server(refusal("bad request")) as server:
        *replies, error = replies_of(server, 50)
    assert [reply.unscored for reply in replies] == [Unscored.BAD_REQUEST] * (MOST_IN_A_ROW - 1)
    assert isinstance(error, UsageError) and "bad request" in str(error)
    assert len(server.calls) == MOST_IN_A_ROW


def test_a_quota_that_is_spent_ends_the_run() -> None:
    with chat_server(Answer(status=429, headers=HOUR)) as server:
        [error] = replies_of(server, 50, retries=2)
    assert isinstance(error, IncompleteError)
    assert "asks for a pause of 60 minutes" in str(error) and "same command" in str(error)
    assert len(server.calls) == 3


LASTING: dict[str, tuple[Answer, type[VivaceError]]] = {
    "quota": (Answer(status=429, headers=HOUR), IncompleteError),
    "endless quota": (Answer(status=429, headers={"retry-after": "1e999"}), IncompleteError),
    "address": (Answer(status=302, headers={"location": "https://elsewhere.example/"}), UsageError),
    "parameter": (refusal("unknown parameter 'temperature'"), UsageError),
    "key": (Answer(status=401), UsageError),
    "permission": (Answer(status=403), UsageError),
    "model": (Answer(status=404), UsageError),
}


@pytest.mark.parametrize("name", LASTING)
def test_one_refusal_among_answers_is_the_calls_own_and_many_in_a_row_end_the_run(name: str) -> None:
    answer, kind = LASTING[name]

    def answers() -> Iterator[Answer]:
        for _ in range(2):
            yield Answer("Yes.")
            for _ in range(MOST_IN_A_ROW - 1):
                yield answer
        while True:
            yield answer

    coming = answers()
    with chat_server(lambda _: next(coming)) as server:
        *replies, error = replies_of(server, 100, retries=0, temperature=0)
    assert isinstance(error, kind)
    assert [reply.text for reply in replies] == ["Yes.", *[None] * (MOST_IN_A_ROW - 1)] * 2
