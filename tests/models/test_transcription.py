"""Transcribers write spoken replies down: what is sent, what comes of each failure, and one on this machine."""

from __future__ import annotations

import asyncio
import importlib.util
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from vivace.audio.convert import decode, to_mono
from vivace.errors import UnreachableError, UsageError
from vivace.models.adapters.transcription import Transcriber, Transcription, open_transcriber
from vivace.models.client import pacing, tries
from vivace.models.client.calls import CallRecord, ChatOptions, recorded_calls
from vivace_rubrics.criteria import Unscored

OPTIONS = ChatOptions(timeout_s=60, retries=1)


def recording(seconds: float = 1.0, rate: int = 24_000) -> bytes:
    """A WAV file of noise."""
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).normal(0, 0.1, int(seconds * rate)).clip(-1, 1)
    soundfile.write(buffer, noise, rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def heard_by(transcriber: Transcriber, *wavs: bytes) -> tuple[list[Transcription], list[CallRecord]]:
    """What a transcriber writes down of these recordings, and the calls that took."""

    async def work() -> tuple[list[Transcription], list[CallRecord]]:
        try:
            with recorded_calls() as calls:
                return [await transcriber.transcribe(wav) for wav in wavs], calls
        finally:
            await transcriber.close()

    return asyncio.run(work())


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_BASE", "GROQ_API_KEY", "HOSTED_VLLM_API_BASE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tries, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(pacing, "FIRST_PAUSE_S", 0.01)


class Uploads:
    """A server of transcriptions: what it was sent, and what it sends back, one after the other."""

    def __init__(self, server: HTTPServer) -> None:
        self.base = server.url_for("/v1")
        self.received: list[tuple[dict[str, str], str, bytes, str | None]] = []
        """Each upload's form fields, file name, file and key."""
        self.answers: list[Response] = []
        server.expect_request("/v1/audio/transcriptions", method="POST").respond_with_handler(self._take)

    def _take(self, request: Request) -> Response:
        file = request.files["file"]
        key = request.headers.get("authorization")
        self.received.append((request.form.to_dict(), str(file.filename), file.read(), key))
        return self.answers.pop(0) if self.answers else said("Good morning.")


def said(text: str, **more: Any) -> Response:
    return Response(json.dumps({"text": text, **more}), content_type="application/json")


def failed(status: int, **error: Any) -> Response:
    return Response(json.dumps({"error": {"message": "no", **error}}), status=status, content_type="application/json")


@pytest.fixture
def uploads(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> Uploads:
    server = Uploads(httpserver)
    monkeypatch.setenv("OPENAI_BASE_URL", server.base)
    return server


def test_a_recording_is_uploaded_as_it_is_and_its_words_come_back(
    uploads: Uploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    wav = recording(2.5)
    [heard], calls = heard_by(open_transcriber("litellm:openai/whisper-1", OPTIONS), wav)
    assert heard == Transcription("Good morning.")
    [(form, name, file, key)] = uploads.received
    assert form == {"model": "whisper-1", "response_format": "json"}
    assert name.endswith(".wav")  # OpenAI goes by the name's ending
    assert file == wav
    assert key == "Bearer secret"
    [call] = calls
    assert (call.stage, call.error) == ("transcribe", None)
    assert call.cost_usd == pytest.approx(2.5 * 0.0001)


def test_tokens_that_the_server_counts_are_recorded_and_priced(uploads: Uploads) -> None:
    usage = {"type": "tokens", "input_tokens": 40, "output_tokens": 10, "input_token_details": {"audio_tokens": 40}}
    uploads.answers = [said("Yes.", usage=usage)]
    _, [call] = heard_by(open_transcriber("litellm:openai/gpt-4o-transcribe", OPTIONS), recording())
    assert (call.input_tokens, call.output_tokens, call.input_audio_tokens) == (40, 10, 40)
    assert call.cost_usd is not None
    assert call.cost_usd > 0


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([said(""), said(" ")], Unscored.EMPTY),
        ([failed(500), failed(503)], Unscored.SERVER_ERROR),
        ([failed(400, code="audio_too_short")], Unscored.BAD_REQUEST),
        ([Response("<html>", content_type="text/html")] * 2, Unscored.UNREADABLE),
        ([Response('{"words": []}')] * 2, Unscored.UNREADABLE),
        ([Response('{"error": {"message": "boom"}}')] * 2, Unscored.SERVER_ERROR),
    ],
    ids=["silence", "out of order", "refused", "HTML", "no text", "an error with status 200"],
)
def test_a_failure_is_a_transcription_without_text_never_an_empty_one(
    answers: list[Response], reason: Unscored, uploads: Uploads
) -> None:
    uploads.answers = list(answers)
    [heard], calls = heard_by(open_transcriber("litellm:openai/whisper-1", OPTIONS), recording())
    assert (heard.text, heard.unscored) == (None, reason)
    assert heard.detail
    assert [call.error for call in calls] == [reason] * len(answers)
    assert [call.stage for call in calls] == ["transcribe"] * len(answers)


def test_a_rate_limit_is_waited_out(uploads: Uploads) -> None:
    uploads.answers = [failed(429)] * 3
    options = ChatOptions(retries=0)
    [heard], calls = heard_by(open_transcriber("litellm:openai/whisper-1", options), recording())
    assert heard.text == "Good morning."
    assert len(calls) == 4


@pytest.mark.parametrize(
    ("status", "words"), [(401, "refuses the key"), (404, "does not know that model"), (403, "refuses the key")]
)
def test_what_would_fail_every_recording_stops_the_run(status: int, words: str, uploads: Uploads) -> None:
    uploads.answers = [failed(status)]
    with pytest.raises(UsageError, match=words):
        heard_by(open_transcriber("litellm:openai/whisper-1", OPTIONS), recording())


def test_the_models_address_and_rates_are_not_the_transcribers(uploads: Uploads) -> None:
    options = ChatOptions("http://127.0.0.1:9/v1", requests_per_minute=1)
    heard, _ = heard_by(open_transcriber("litellm:openai/whisper-1", options), *[recording(0.1)] * 3)
    assert [one.text for one in heard] == ["Good morning."] * 3


def test_other_providers_are_asked_through_litellm(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Uploads(httpserver)
    monkeypatch.setenv("GROQ_API_BASE", server.base)
    monkeypatch.setenv("GROQ_API_KEY", "secret")
    wav = recording()
    server.answers = [failed(500)]
    [heard], calls = heard_by(open_transcriber("litellm:groq/whisper-large-v3", OPTIONS), wav)
    assert heard == Transcription("Good morning.")
    assert [call.error for call in calls] == [Unscored.SERVER_ERROR, None]
    form, _, file, _ = server.received[-1]
    assert form["model"] == "whisper-large-v3"
    assert file == wav


def test_what_makes_a_transcriber_another_one_is_its_identity(
    uploads: Uploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = open_transcriber("litellm:openai/whisper-1", OPTIONS).identity
    assert own == {"target": "litellm:openai/whisper-1", "address": uploads.base}
    monkeypatch.delenv("OPENAI_BASE_URL")
    assert open_transcriber("litellm:openai/whisper-1", ChatOptions()).identity == {
        "target": "litellm:openai/whisper-1"
    }


def test_before_any_work_a_missing_key_or_server_is_found() -> None:
    with pytest.raises(UsageError, match="transcriber 'openai/whisper-1' needs OPENAI_API_KEY"):
        asyncio.run(open_transcriber("litellm:openai/whisper-1", OPTIONS).preflight())


def test_a_server_that_is_not_there_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    with pytest.raises(UnreachableError, match="Nothing answers for the transcriber"):
        asyncio.run(open_transcriber("litellm:openai/whisper-1", OPTIONS).preflight())


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("whisper-1", "write it as ADAPTER:NAME"),
        ("litellm:", "write it as ADAPTER:NAME"),
        ("deepgram:nova", "write it as ADAPTER:NAME"),
        ("litellm:nowhere/whisper", "knows no provider for the transcriber"),
        ("litellm:hosted_vllm/whisper", "HOSTED_VLLM_API_BASE"),
        ("local:nowhere", "There is no folder 'nowhere'"),
    ],
)
def test_a_target_that_names_no_transcriber_is_a_sentence(target: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        open_transcriber(target, OPTIONS)


# On this machine

needs_torch = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("torch", "transformers")),
    reason="local transcribers need torch and transformers: pip install 'vivace[local]'",
)


def tiny_whisper(folder: Path) -> Path:
    """Whisper with its real processor, tiny and with random weights, saved as its publisher does."""
    import torch
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import (
        GenerationConfig,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperProcessor,
        WhisperTokenizer,
    )

    special = ["<|endoftext|>", "<|startoftranscript|>", "<|nospeech|>", "<|notimestamps|>"]
    times = [f"<|{number * 0.02:.2f}|>" for number in range(1501)]
    vocabulary = {token: number for number, token in enumerate([*sorted(ByteLevel.alphabet()), *special, *times])}
    words = WhisperTokenizer(vocab=vocabulary, merges=[])
    words.add_special_tokens({"additional_special_tokens": special[1:]})
    end, start, _, no_times = (vocabulary[token] for token in special)
    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=len(vocabulary), d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, bos_token_id=end, eos_token_id=end,
        pad_token_id=end, decoder_start_token_id=start, init_std=0.3,
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        eos_token_id=end, pad_token_id=end, bos_token_id=end, decoder_start_token_id=start,
        no_timestamps_token_id=no_times, max_new_tokens=8, is_multilingual=False, return_timestamps=False,
        begin_suppress_tokens=[end], max_initial_timestamp_index=50,
    )  # fmt: skip
    model.save_pretrained(folder)
    WhisperProcessor(WhisperFeatureExtractor(), words).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_whisper(tmp_path_factory.mktemp("whisper"))


@needs_torch
@pytest.mark.usefixtures("models_start_at_once")
def test_a_local_whisper_writes_down_what_it_hears_to_the_end(whisper: Path) -> None:
    """Whisper's window is 30 s: a change beyond it must be heard, too."""
    long = recording(70)
    samples, rate = soundfile.read(io.BytesIO(long))
    samples[65 * rate :] = 0
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV", subtype="PCM_16")
    heard, calls = heard_by(
        open_transcriber(f"local:{whisper}", OPTIONS), recording(3), long, buffer.getvalue(), recording(3)
    )
    texts = [one.text for one in heard]
    assert None not in texts
    assert texts[1] != texts[2]
    assert texts[0] == texts[3]
    assert [(call.stage, call.error) for call in calls] == [("transcribe", None)] * 4
    expected = expected_text(whisper, recording(3))
    assert texts[0] == expected


def expected_text(folder: Path, wav: bytes) -> str:
    """What the same model writes when it is asked in transformers' own words, with its own reader of files."""
    import torch
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

    processor = WhisperProcessor.from_pretrained(folder)
    model = WhisperForConditionalGeneration.from_pretrained(folder).eval()
    samples = to_mono(decode(wav), 16_000).astype(np.float32)
    inputs = processor(samples, sampling_rate=16_000, return_tensors="pt", return_attention_mask=True)
    with torch.inference_mode():
        tokens = model.generate(**inputs, return_timestamps=True, num_beams=5)
    return str(processor.batch_decode(tokens, skip_special_tokens=True)[0]).strip()


@needs_torch
def test_a_local_transcribers_identity_is_its_checkpoint_wherever_it_lies(whisper: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(whisper, moved)
    here, there = (open_transcriber(f"local:{folder}", OPTIONS) for folder in (whisper, moved))
    assert here.identity == there.identity
    (moved / "generation_config.json").write_text("{}")
    assert open_transcriber(f"local:{moved}", OPTIONS).identity != here.identity
    assert str(whisper) not in json.dumps(here.identity)


@needs_torch
@pytest.mark.usefixtures("models_start_at_once")
def test_a_checkpoint_that_is_no_transcriber_is_refused_before_any_work(tmp_path: Path) -> None:
    from support import tiny_audio_models

    folder = tiny_audio_models.text_only(tmp_path / "llama")
    transcriber = open_transcriber(f"local:{folder}", OPTIONS)

    async def work() -> None:
        try:
            await transcriber.preflight()
        finally:
            await transcriber.close()

    with pytest.raises(UsageError, match="models of the type 'llama' do not transcribe"):
        asyncio.run(work())


@needs_torch
@pytest.mark.usefixtures("models_start_at_once")
def test_a_reply_that_is_no_sound_is_unscored_and_the_next_one_is_heard(whisper: Path) -> None:
    heard, calls = heard_by(open_transcriber(f"local:{whisper}", OPTIONS), b"no sound at all", recording())
    assert [one.unscored for one in heard] == [Unscored.BAD_REQUEST, None]
    assert [call.error for call in calls] == [Unscored.BAD_REQUEST, None]
