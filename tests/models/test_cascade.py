"""Cascades: an ear hears each turn, a model answers what it wrote, and what was not heard is never answered."""

from __future__ import annotations

import asyncio
import io
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import soundfile

from support.datasets import tone
from vivace.audio.convert import for_model
from vivace.audio.voice import LONGEST_SPOKEN, VoiceError, espeak
from vivace.errors import IncompleteError, UsageError
from vivace.models import packaged
from vivace.models.adapters.cascade import CHARACTERS_A_SECOND, SPARE_CHARACTERS, Cascade
from vivace.models.adapters.transcription import Transcription
from vivace.models.base import ModelIdentity, ModelReply, Prompt, SpokenOutput, SpokenTurn
from vivace.models.client.calls import CallRecord, ChatOptions, record_call, recorded_calls
from vivace.models.registry import asked_target, is_free, open_system
from vivace.spec import DialogueSpec
from vivace_rubrics.criteria import Unscored

OPTIONS = ChatOptions(timeout_s=60, retries=0)


@dataclass
class Ear:
    """Hears what it is told to hear, one text after the other."""

    hears: list[str | Unscored]
    name: str = "ear"
    asked: int = 0
    told: str = "ear"

    @property
    def identity(self) -> dict[str, Any]:
        return {"target": self.told}

    async def preflight(self) -> None: ...

    async def transcribe(self, wav: bytes) -> Transcription:
        self.asked += 1
        made = self.hears[self.asked - 1]
        error = made if isinstance(made, Unscored) else None
        record_call(CallRecord(0.25, cost_usd=0.01, stage="transcribe", error=error))
        return Transcription(None, made, "no luck") if isinstance(made, Unscored) else Transcription(str(made))

    async def close(self) -> None: ...


@dataclass
class Writer:
    """Answers with the number of turns, and keeps what it was asked."""

    prompts: list[Prompt] = field(default_factory=list)
    identity: ModelIdentity = field(
        default_factory=lambda: ModelIdentity("litellm:m", "litellm", "m", parameters={"t": 1})
    )

    async def preflight(self) -> None: ...

    async def reply(self, prompt: Prompt) -> ModelReply:
        self.prompts.append(prompt)
        record_call(CallRecord(2.0, input_tokens=7))
        return ModelReply(f"{len(prompt.turns)} turns.", ttft_s=0.5, total_s=2.0)

    async def close(self) -> None: ...


def spoken(*seconds: float) -> Prompt:
    """A conversation of recordings."""
    turns = [SpokenTurn(for_model(tone(300, each), "16k"), None, each) for each in seconds]
    answers = [*(f"Answer {place}." for place in range(len(turns) - 1)), None]
    return Prompt("one", list(zip(turns, answers, strict=True)))


def asked(ear: Ear, prompt: Prompt, writer: Writer | None = None) -> tuple[ModelReply, list[CallRecord]]:
    async def ask() -> tuple[ModelReply, list[CallRecord]]:
        with recorded_calls() as calls:
            return await Cascade(ear, writer or Writer()).reply(prompt), calls

    return asyncio.run(ask())


def test_the_model_reads_what_the_ear_wrote_in_the_protocol_and_times_and_costs_are_the_stages() -> None:
    writer = Writer()
    reply, calls = asked(Ear(["Good morning.", "And now?"]), spoken(0.5, 0.75), writer)
    [prompt] = writer.prompts
    assert [(turn.audio, turn.text, answer) for turn, answer in prompt.turns] == [
        (None, "Good morning.", "Answer 0."), (None, "And now?", None),
    ]  # fmt: skip
    assert (reply.text, reply.ttft_s, reply.total_s) == ("2 turns.", 1.0, 2.5)
    assert [(turn.number, turn.text, turn.seconds, turn.cost_usd) for turn in reply.heard] == [
        (1, "Good morning.", 0.25, 0.01), (2, "And now?", 0.25, 0.01),
    ]  # fmt: skip
    assert [(call.stage, call.audio_seconds) for call in calls] == [
        ("transcribe", 0.5),
        ("transcribe", 0.75),
        (None, 0),
    ]


@pytest.mark.parametrize(
    "second", ["", " \n", Unscored.EMPTY, Unscored.TIMEOUT, Unscored.SERVER_ERROR, "la " * 10_000]
)
def test_a_turn_that_was_not_heard_leaves_no_reply_and_is_no_answer_to_something_else(second: str | Unscored) -> None:
    writer = Writer()
    reply, calls = asked(Ear(["Hello.", second, "Never asked."]), spoken(0.3, 0.3, 0.3), writer)
    assert (reply.text, reply.unscored, writer.prompts) == (None, Unscored.NOT_HEARD, [])
    assert (
        reply.detail is not None
        and reply.detail.startswith("user turn 2 was not heard: ")
        and len(reply.detail) < 300
    )
    assert [turn.text for turn in reply.heard] == ["Hello.", None] and len(calls) == 2


def test_a_transcript_is_as_long_as_anybody_could_say_it() -> None:
    longest = "a" * int(SPARE_CHARACTERS + CHARACTERS_A_SECOND * 0.5)
    for text, unscored in ((longest, None), (longest + "a", Unscored.TOO_LONG)):
        reply, _ = asked(Ear([text]), spoken(0.5))
        assert reply.heard[0].unscored is unscored


def test_transcripts_go_to_the_model_as_they_are() -> None:
    ear, writer = Ear([]), Writer()
    reply, _ = asked(ear, Prompt("one", [(SpokenTurn(None, "Written."), None)]), writer)
    assert (ear.asked, reply.heard, reply.ttft_s) == (0, (), 0.5)
    assert writer.prompts[0].turns[0][0].text == "Written."


def test_what_was_paid_before_a_failure_that_stops_the_run_is_recorded() -> None:
    class Refused(Writer):
        async def reply(self, prompt: Prompt) -> ModelReply:
            record_call(CallRecord(1.0, cost_usd=0.5))
            raise UsageError("the key is refused")

    async def ask() -> list[CallRecord]:
        with recorded_calls() as calls:
            with pytest.raises(UsageError):
                await Cascade(Ear(["Hello."]), Refused()).reply(spoken(0.3))
            return calls

    assert [call.cost_usd for call in asyncio.run(ask())] == [0.01, 0.5]


def test_a_model_that_refuses_leaves_what_was_heard_and_its_own_reason() -> None:
    class Refusing(Writer):
        async def reply(self, prompt: Prompt) -> ModelReply:
            return ModelReply(None, Unscored.REFUSED, "I would rather not.")

    reply, _ = asked(Ear(["Hello."]), spoken(0.3), Refusing())
    assert (reply.text, reply.unscored, reply.detail) == (None, Unscored.REFUSED, "I would rather not.")
    assert [turn.text for turn in reply.heard] == ["Hello."]


class Voice:
    """Speaks a tone for every text."""

    name = "voice"
    identity: dict[str, Any] = {"program": "voice"}  # noqa: RUF012

    def speak(self, text: str) -> bytes:
        if "mute" in text:
            raise VoiceError("it has no word for it")
        if "gone" in text:
            raise IncompleteError("it does not answer")
        return tone(440, 0.2, channels=2)


def test_a_voice_speaks_the_reply_whose_text_is_the_models_own() -> None:
    cascade = Cascade(Ear(["Hello."]), Writer(), Voice())
    reply = asyncio.run(cascade.reply(spoken(0.3)))
    assert reply.text == "1 turns." and reply.audio is not None
    assert soundfile.info(io.BytesIO(reply.audio)).channels == 1
    assert reply.total_s is not None and reply.total_s >= 2.25 and reply.first_audio_s == reply.total_s
    assert cascade.identity.parameters["output"] == "audio"


@dataclass
class Says(Writer):
    """Answers with what it is told to, one text after the other."""

    texts: list[str] = field(default_factory=list)

    async def reply(self, prompt: Prompt) -> ModelReply:
        return ModelReply(self.texts.pop(0))


def test_a_voice_that_fails_leaves_the_reply_unscored() -> None:
    """What the model wrote, and was paid for, is kept; only a voice that is gone for good ends the run."""
    long = "a" * (LONGEST_SPOKEN + 1)
    cascade = Cascade(Ear(["Hello."] * 9), Says(texts=["mute", long, "gone", "gone", "yes", *["gone"] * 3]), Voice())

    async def ask() -> list[tuple[str | None, str | None, Unscored | None, Unscored | None]]:
        found = []
        for _ in range(7):
            with recorded_calls() as calls:
                reply = await cascade.reply(spoken(0.3))
            failed = next((call.error for call in calls if call.stage == "speak"), None)
            found.append((reply.text, reply.raw_text, reply.unscored, failed))
        with pytest.raises(IncompleteError, match="it does not answer"):
            await cascade.reply(spoken(0.3))
        return found

    unheard, lost = Unscored.NO_AUDIO, Unscored.SERVER_ERROR
    assert asyncio.run(ask()) == [
        (None, "mute", unheard, unheard), (None, long, Unscored.TOO_LONG, None), (None, "gone", lost, lost),
        (None, "gone", lost, lost), ("yes", None, None, None), (None, "gone", lost, lost), (None, "gone", lost, lost),
    ]  # fmt: skip
    with pytest.raises(VoiceError, match="more than 20,000"):
        espeak(long, "en-us", 165)


def test_ear_model_and_voice_make_its_identity() -> None:
    alike = Cascade(Ear([]), Writer()).identity
    assert (alike.target, alike.adapter, alike.name) == ("cascade:litellm:m", "cascade", "ear → m")
    other = Ear([], told="other")
    prints = {
        Cascade(*stages).identity.fingerprint
        for stages in ((Ear([]), Writer()), (other, Writer()), (Ear([]), Writer(), Voice()))
    }
    assert len(prints) == 3 and Writer().identity.fingerprint not in prints


@pytest.fixture
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOSTED_VLLM_API_BASE", "http://127.0.0.1:9/v1")
    (tmp_path / "replies.jsonl").write_text('{"id": "a", "response": "yes"}\n')


@pytest.mark.usefixtures("_elsewhere")
@pytest.mark.parametrize(
    ("target", "ear", "words"),
    [
        ("cascade:litellm:hosted_vllm/m", None, "has no ear yet: name a transcriber that hears for it"),
        ("cascade:", "litellm:hosted_vllm/ear", "lacks a name after 'cascade:'"),
        ("cascade:hosted_vllm/m", "litellm:hosted_vllm/ear", "Unknown model of cascade: 'hosted_vllm/m'"),
        ("cascade:litelm:hosted_vllm/m", "litellm:hosted_vllm/ear", "did you mean 'litellm'"),
        ("cascade:cascade:litellm:hosted_vllm/m", "litellm:hosted_vllm/ear", "one ear and one model"),
        ("cascade:replay:replies.jsonl", "litellm:hosted_vllm/ear", "replay: holds recorded replies"),
        ("cascade:litellm:hosted_vllm/m", "espeak-ng:en", "write it as ADAPTER:NAME"),
        ("cascade:litellm:hosted_vllm/m", "whisper:packaged:whisper-base", "fetch it with `vivace models get"),
        ("cascade:packaged:smollm2-135m", "litellm:hosted_vllm/ear", "fetch it with `vivace models get"),
        ("cascade:packaged:whisper-base", "litellm:hosted_vllm/ear", "recognises speech and predicts no text"),
        ("cascade:packaged:smollm3", "litellm:hosted_vllm/ear", "There is no packaged model 'smollm3'"),
        ("litellm:hosted_vllm/m", "litellm:hosted_vllm/ear", "--model cascade:litellm:hosted_vllm/m"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_cascade_is_a_sentence(target: str, ear: str | None, words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        open_system(target, {}, OPTIONS, ear=ear, home=tmp_path / "home")
    assert words in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.usefixtures("_elsewhere")
def test_a_voice_goes_with_spoken_output_alone(tmp_path: Path) -> None:
    def opened(spoken: SpokenOutput) -> Any:
        return open_system("cascade:litellm:hosted_vllm/m", {}, OPTIONS, spoken, ear="litellm:hosted_vllm/ear")

    with pytest.raises(UsageError, match="--voice is about spoken answers"):
        opened(SpokenOutput(voice="espeak-ng:en-us"))
    with pytest.raises(UsageError, match="is not a voice"):
        opened(SpokenOutput("audio", "alloy"))
    with pytest.raises(UsageError, match="name who hears with --ear"):
        opened(SpokenOutput("audio", transcriber="litellm:hosted_vllm/ear"))


def test_folders_of_ear_and_model_are_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("model", "ears", "openai"):
        (tmp_path / name).mkdir()
    for model, ear, found in (
        ("cascade:local:model", "whisper(beam_size=1):ears", "cascade:local:{}/model whisper(beam_size=1):{}/ears"),
        ("cascade:litellm:openai", "litellm:openai", "cascade:litellm:openai litellm:openai"),
        ("cascade:local:nowhere", "whisper:base", "cascade:local:nowhere whisper:base"),
    ):
        spec = DialogueSpec(track="audio-multichallenge", data="demo", model=model, ear=ear).with_absolute_paths()
        assert f"{spec.model} {spec.ear}" == found.format(tmp_path, tmp_path)


def test_prices_are_those_of_the_model_that_is_asked() -> None:
    assert asked_target("cascade:litellm:openai/gpt-4o") == "litellm:openai/gpt-4o"
    assert asked_target("litellm:openai/gpt-4o") == "litellm:openai/gpt-4o"
    assert is_free("cascade:packaged:smollm2-135m") and not is_free("cascade:litellm:openai/gpt-4o")


def test_a_damaged_packaged_ear_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its bytes are checked, not only whether its files are there."""
    files = {
        name: packaged.Payload((), len(name), packaged.hashlib.sha256(name.encode()).hexdigest())
        for name in ("config.json", "model.bin", "tokenizer.json", "vocabulary.txt")
    }
    model = packaged.PackagedModel({}, files, 0, is_gguf=False, licence="MIT")
    monkeypatch.setitem(packaged.PACKAGED, "whisper-base", model)
    folder = tmp_path / "packaged" / "whisper-base"
    folder.mkdir(parents=True)
    for name in files:
        (folder / name).write_text(name)
    from vivace.models.adapters.transcription import open_transcriber

    assert open_transcriber("whisper:packaged:whisper-base", OPTIONS, tmp_path).name == "whisper-base"
    (folder / "model.bin").write_text("model.bim")
    with pytest.raises(UsageError, match="its SHA-256 differs"):
        open_transcriber("whisper:packaged:whisper-base", OPTIONS, tmp_path)
    shutil.rmtree(folder)
