"""`local:` answers spoken conversations with real transformers classes, and outlives whatever happens to them."""

from __future__ import annotations

import asyncio
import fcntl
import importlib.util
import io
import json
import os
import re
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import soundfile

from support.datasets import tone
from vivace.audio.convert import EncodedAudio, encode_wav, for_model
from vivace.errors import UnreachableError, UsageError
from vivace.files import content_hash
from vivace.models.adapters import local
from vivace.models.base import ModelReply, Prompt, SpokenTurn
from vivace.models.client.calls import CallRecord, ChatOptions, recorded_calls
from vivace.models.local.checkpoints import checkpoint_sha256
from vivace.models.local.failures import RefusedError
from vivace.models.local.loading import load_checkpoint
from vivace.models.local.service import _answer_or_error
from vivace.models.local.spoken_model import SpokenModel
from vivace_rubrics.criteria import Unscored

if any(importlib.util.find_spec(name) is None for name in ("torch", "transformers")):
    pytest.skip("local models need torch and transformers: pip install 'vivace[local]'", allow_module_level=True)

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.utils import is_mistral_common_available

from support import tiny_audio_models as tiny

needs_mistral_common = pytest.mark.skipif(
    not is_mistral_common_available(), reason="Voxtral needs mistral-common: pip install 'mistral-common[audio]'"
)
FAMILIES = [
    "qwen2_audio",
    "qwen2_5_omni",
    "qwen3_omni",
    pytest.param("voxtral", marks=needs_mistral_common),
]
ANSWERS = ("Noted, a table for two.", "Gladly. At eight, then.")
NEW_TOKENS = 12


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Tiny checkpoints by the name of their family, each made once."""
    made: dict[str, Path] = {}

    def make(family: str) -> Path:
        if family not in made:
            folder = tmp_path_factory.mktemp(family)
            made[family] = getattr(tiny, family)(folder)
        return made[family]

    return make


@pytest.fixture(scope="module", autouse=True)
def processes_start_at_once(preloaded_python: str) -> Iterator[None]:
    """Models are held by forks of a process that has loaded what they need."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(local.LocalModel, "worker", [preloaded_python, *local.WORKER[1:]])
        yield


@pytest.fixture(scope="module")
def model(checkpoint: Callable[[str], Path]) -> Iterator[local.LocalModel]:
    """A Qwen2-Audio in a process of its own; whatever a test does to that process, the next one is served."""
    opened_model = opened(checkpoint("qwen2_audio"))
    yield opened_model
    asyncio.run(opened_model.close())


@pytest.fixture(scope="module")
def loaded(checkpoint: Callable[[str], Path]) -> Callable[[str], SpokenModel]:
    """What the process runs, loaded here: models by family, each loaded once."""
    models: dict[str, SpokenModel] = {}

    def load(family: str) -> SpokenModel:
        if family not in models:
            models[family] = SpokenModel(setup(checkpoint(family), batch=2))
        return models[family]

    return load


def setup(
    folder: Path, seed: int | None = None, device: str = "cpu", batch: int = 1, **generation: Any
) -> dict[str, Any]:
    """What a process is told to load."""
    return {
        "folder": str(folder),
        "dtype": "auto",
        "device": device,
        "attn_implementation": None,
        "generation": {"max_new_tokens": NEW_TOKENS, "do_sample": False, **generation},
        "seed": seed,
        "batch": batch,
        "method": None,
    }


def opened(folder: Path | str, **arguments: Any) -> local.LocalModel:
    arguments = {"device": "cpu", "max_new_tokens": NEW_TOKENS, **arguments}
    return local.LocalModel(str(folder), arguments, ChatOptions(timeout_s=60))


def spoken(content: bytes) -> SpokenTurn:
    return SpokenTurn(for_model(content, "16k"), None)


def conversation(*recordings: bytes) -> Prompt:
    """Recordings with the fixed answers between them."""
    answers = [*ANSWERS[: len(recordings) - 1], None]
    return Prompt("one", list(zip(map(spoken, recordings), answers, strict=True)))


WRITTEN = Prompt("text", [(SpokenTurn(None, "Hello"), ANSWERS[0]), (SpokenTurn(None, "And?"), None)])
VOICES = (tone(300, 0.6), tone(550, 0.9), tone(800, 0.4))


def ask(model: local.LocalModel | SpokenModel, prompt: Prompt) -> ModelReply:
    """The reply of a model in a process of its own, or of one loaded here."""
    if isinstance(model, SpokenModel):
        return local._reply(model.answer(local._request([prompt], 60.0)), model.description)
    return asyncio.run(model.reply(prompt))


def pid_of(model: local.LocalModel) -> int:
    asyncio.run(model.preflight())
    assert model._process is not None
    return model._process.pid


def stop(model: local.LocalModel) -> int:
    """Stop the process that answers: not always the one that was started, which may stand for a fork."""
    assert model._process is not None and model._process._process.stdin is not None
    pipe = Path(f"/proc/self/fd/{model._process._process.stdin.fileno()}").readlink()
    for process in psutil.process_iter():
        with suppress(OSError):
            if Path(f"/proc/{process.pid}/fd/0").readlink() == pipe:
                os.kill(process.pid, signal.SIGSTOP)
                while process.status() != psutil.STATUS_STOPPED:  # until then it still reads what it is asked
                    time.sleep(0.001)
                return process.pid
    raise AssertionError("nobody reads what the model is asked")


async def at_work(model: local.LocalModel) -> None:
    """Wait until the stopped process has been asked for something."""
    assert model._process is not None and model._process._process.stdin is not None
    pipe, unread = model._process._process.stdin, bytes(4)
    while not any(unread):
        unread = fcntl.ioctl(pipe, termios.FIONREAD, bytes(4))
        await asyncio.sleep(0.01)


# What it hears


@pytest.mark.parametrize("family", FAMILIES)
def test_every_recording_counts_in_its_place(family: str, loaded: Callable[[str], SpokenModel]) -> None:
    model = loaded(family)
    reply = ask(model, conversation(*VOICES))
    assert reply.text and reply.unscored is None and reply.detail is None
    assert ask(model, conversation(*VOICES)).text == reply.text  # greedy: the same again

    other_second = ask(model, conversation(VOICES[0], tone(2_000, 0.9), VOICES[2]))
    swapped = ask(model, conversation(VOICES[1], VOICES[0], VOICES[2]))
    silence = encode_wav(np.zeros(6_400), 16_000)
    silent = ask(model, conversation(VOICES[0], VOICES[1], silence))
    assert len({reply.text, other_second.text, swapped.text, silent.text}) == 4


@pytest.mark.parametrize("family", FAMILIES)
def test_the_reply_is_what_transformers_generates(
    family: str, loaded: Callable[[str], SpokenModel], checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = checkpoint(family)
    prompt = conversation(*VOICES)
    reply = ask(loaded(family), prompt)
    network, generated, _ = expected(family, folder, prompt, tmp_path)
    assert reply.text == generated
    assert type(network).__name__ in (reply.model_snapshot or "")


def test_a_process_of_its_own_gives_the_same_reply_with_times_and_tokens(
    model: local.LocalModel, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    prompt = conversation(*VOICES)
    with recorded_calls() as calls:
        reply = ask(model, prompt)
    _, generated, (read, written) = expected("qwen2_audio", checkpoint("qwen2_audio"), prompt, tmp_path)
    assert reply.text == generated
    (call,) = calls
    assert (call.input_tokens, call.output_tokens) == (read, written)
    recordings = [soundfile.info(io.BytesIO(turn.audio.content)) for turn, _ in prompt.turns if turn.audio]
    spoken = sum(recording.duration for recording in recordings)
    assert call.input_audio_tokens == pytest.approx(25 * spoken, abs=2), "Qwen2-Audio takes 25 a second"
    assert call.cost_usd == 0.0 and call.error is None and call.seconds > 0
    assert reply.finish_reason == ("length" if written == NEW_TOKENS else "stop")
    assert reply.ttft_s is not None and reply.total_s is not None and 0 < reply.ttft_s <= reply.total_s
    assert "float32 on cpu" in (reply.model_snapshot or "")


def expected(family: str, folder: Path, prompt: Prompt, scratch: Path) -> tuple[Any, str, tuple[int, int]]:
    """The network, what it generates from inputs made without Vivace, and the tokens in and out."""
    recordings = [soundfile.read(io.BytesIO(turn.audio.content))[0] for turn, _ in prompt.turns if turn.audio]
    network, inputs, words = REFERENCES[family](folder, recordings, scratch)
    with torch.inference_mode():
        output = network.eval().generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
    length = inputs["input_ids"].shape[1]
    generated = output[0, length:].tolist()
    return network, words.decode(generated, skip_special_tokens=True), (length, len(generated))


Reference = Callable[[Path, list[Any], Path], tuple[Any, Any, Any]]


def qwen2_audio_reference(folder: Path, recordings: list[Any], _scratch: Path) -> tuple[Any, Any, Any]:
    """As on the model's card: the prompt as text, then text and recordings to the processor."""
    processor = transformers.Qwen2AudioProcessor.from_pretrained(folder)
    text = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    for number, answer in enumerate([*ANSWERS, None], start=1):
        text += f"<|im_start|>user\nAudio {number}: <|audio_bos|><|AUDIO|><|audio_eos|>\n<|im_end|>\n"
        text += f"<|im_start|>assistant\n{answer}<|im_end|>\n" if answer else "<|im_start|>assistant\n"
    inputs = processor(text=text, audio=recordings, sampling_rate=16_000, return_tensors="pt", padding=True)
    return transformers.Qwen2AudioForConditionalGeneration.from_pretrained(folder), inputs, processor.tokenizer


def omni_reference(folder: Path, recordings: list[Any], network: Any, padding: str, count: Any) -> Any:
    """Inputs made by hand, with as many placeholders as the encoder gives numbers for each recording."""
    words = transformers.AutoTokenizer.from_pretrained(folder)
    listening = transformers.WhisperFeatureExtractor.from_pretrained(folder)
    features = listening(
        recordings, sampling_rate=16_000, padding=padding, return_attention_mask=True, return_tensors="pt"
    )
    text = ""
    for frames, answer in zip(features["attention_mask"].sum(-1).tolist(), [*ANSWERS, None], strict=True):
        text += f"<|im_start|>user\n<|audio_bos|>{'<|AUDIO|>' * count(frames)}<|audio_eos|><|im_end|>\n"
        text += f"<|im_start|>assistant\n{answer}<|im_end|>\n" if answer else "<|im_start|>assistant\n"
    inputs = {
        **words(text, return_tensors="pt"),
        "input_features": features["input_features"],
        "feature_attention_mask": features["attention_mask"],
    }
    return network.from_pretrained(folder), inputs, words


def qwen2_5_omni_reference(folder: Path, recordings: list[Any], _scratch: Path) -> tuple[Any, Any, Any]:
    network = transformers.Qwen2_5OmniThinkerForConditionalGeneration
    return omni_reference(
        folder, recordings, network, "max_length", lambda frames: (((frames - 1) // 2 + 1) - 2) // 2 + 1
    )


def qwen3_omni_reference(folder: Path, recordings: list[Any], _scratch: Path) -> tuple[Any, Any, Any]:
    def count(frames: int) -> int:
        left = frames % 100
        for _ in range(3):
            left = (left - 1) // 2 + 1
        return left + frames // 100 * 13

    network = transformers.Qwen3OmniMoeThinkerForConditionalGeneration
    return omni_reference(folder, recordings, network, "longest", count)


def voxtral_reference(folder: Path, recordings: list[Any], scratch: Path) -> tuple[Any, Any, Any]:
    """As on the model's card: recordings as files."""
    messages: list[dict[str, Any]] = []
    for number, (samples, answer) in enumerate(zip(recordings, [*ANSWERS, None], strict=True)):
        path = scratch / f"{number}.wav"
        soundfile.write(path, samples, 16_000)
        messages.append({"role": "user", "content": [{"type": "audio", "path": str(path)}]})
        if answer:
            messages.append({"role": "assistant", "content": answer})
    processor = transformers.VoxtralProcessor.from_pretrained(folder)
    inputs = processor.apply_chat_template(messages, return_tensors="pt", return_dict=True, tokenize=True)
    return transformers.VoxtralForConditionalGeneration.from_pretrained(folder), inputs, processor.tokenizer


REFERENCES: dict[str, Reference] = {
    "qwen2_audio": qwen2_audio_reference,
    "qwen2_5_omni": qwen2_5_omni_reference,
    "qwen3_omni": qwen3_omni_reference,
    "voxtral": voxtral_reference,
}


def test_recordings_of_any_rate_and_container_are_heard_the_same(
    loaded: Callable[[str], SpokenModel],
) -> None:
    """The processor's rate is 16 kHz; a WAV at 24 kHz is resampled, not taken for a slower voice."""
    model = loaded("qwen2_audio")
    at_16k = conversation(*VOICES)
    original = replace(
        at_16k,
        turns=[
            (SpokenTurn(EncodedAudio(content.content, "wav"), None), answer)
            for content, (_, answer) in zip(
                [for_model(tone_content, "original") for tone_content in VOICES], at_16k.turns, strict=True
            )
        ],
    )
    assert ask(model, original).text == ask(model, at_16k).text


def test_two_user_turns_without_an_answer_between_them_are_one_message(
    loaded: Callable[[str], SpokenModel],
) -> None:
    turns = [(spoken(VOICES[0]), None), (spoken(VOICES[1]), ANSWERS[0]), (spoken(VOICES[2]), None)]
    reply = ask(loaded("qwen2_audio"), Prompt("gap", turns))
    assert reply.text and reply.unscored is None


def test_what_the_processor_cuts_is_said(loaded: Callable[[str], SpokenModel]) -> None:
    model = loaded("qwen2_audio")
    long = tone(300, 41.3, rate=16_000, container="WAV")
    reply = ask(model, conversation(VOICES[0], long, VOICES[2]))
    assert reply.text
    assert reply.detail == "user turn 2: 41.3 s, of which the model's processor takes the first 30 s"
    assert ask(model, conversation(*VOICES)).detail is None


@pytest.mark.parametrize("family", FAMILIES[1:])
def test_models_that_take_long_recordings_are_not_accused(family: str, loaded: Callable[[str], SpokenModel]) -> None:
    reply = ask(loaded(family), conversation(tone(300, 41.3, rate=16_000, container="WAV")))
    # What these weights say may be nothing that can be seen.
    assert reply.finish_reason and (reply.text or reply.detail == "the reply is empty (finish reason length)")


def test_a_recording_that_cannot_be_decoded_is_unscored(loaded: Callable[[str], SpokenModel]) -> None:
    broken = Prompt("broken", [(SpokenTurn(EncodedAudio(b"RIFFnothing", "wav"), None), None)])
    answer = _answer_or_error(loaded("qwen2_audio"), local._request([broken], 60.0))
    assert answer["error"] == "bad_request" and "cannot be decoded" in answer["detail"]


def test_sampling_depends_on_the_seed_and_on_nothing_before(checkpoint: Callable[[str], Path]) -> None:
    folder = checkpoint("qwen2_audio")
    one, two = (SpokenModel(setup(folder, seed, do_sample=True, temperature=1.5)) for seed in (1, 2))
    first = ask(one, conversation(*VOICES)).text
    assert ask(one, conversation(*VOICES)).text == first
    assert ask(two, conversation(*VOICES)).text != first


# Batches

SEVERAL = (
    conversation(VOICES[0]),
    conversation(*VOICES),
    conversation(tone(2_000, 1.7), VOICES[1]),
)
"""Conversations with different numbers of recordings, and recordings of different lengths."""
BROKEN = Prompt("broken", [(SpokenTurn(EncodedAudio(b"RIFFnothing", "wav"), None), None)])
BATCH_OF = re.compile(r"answered in a batch of (\d+), whose times these are")


def answers(model: SpokenModel, *prompts: Prompt, timeout_s: float = 60.0) -> list[dict[str, Any]]:
    """What a model answers to one conversation or several together."""
    answer = _answer_or_error(model, local._request(list(prompts), timeout_s))
    return answer["answers"] if len(prompts) > 1 else [answer]


def without_times(answer: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in answer.items() if key not in ("ttft_s", "total_s", "notes")}


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Callable[[SpokenModel], list[list[int]]]:
    """Where the new tokens of all further replies of a model are noted."""

    def watch(model: SpokenModel) -> list[list[int]]:
        rows: list[list[int]] = []
        generate = model._model.generate

        def noting(**inputs: Any) -> Any:
            output = generate(**inputs)
            rows.extend(output[:, inputs["input_ids"].shape[1] :].tolist())
            return output

        monkeypatch.setattr(model._model, "generate", noting)
        return rows

    return watch


@pytest.mark.parametrize("family", FAMILIES)
def test_replies_in_a_batch_are_those_that_each_conversation_gets_alone(
    family: str,
    loaded: Callable[[str], SpokenModel],
    written: Callable[[SpokenModel], list[list[int]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Padding, masks, positions, the recordings' order and where a reply ends: all of it is checked by tokens."""
    model = loaded(family)
    rows = written(model)
    for prompt in SEVERAL:
        answers(model, prompt)
    # From now on one of the replies ends before the others.
    monkeypatch.setattr(model._model.generation_config, "eos_token_id", [2, rows[1][min(4, len(rows[1]) - 1)]])
    rows.clear()
    alone = [answers(model, prompt)[0] for prompt in SEVERAL]
    tokens_alone = list(rows)
    rows.clear()
    together = answers(model, *SEVERAL)
    assert [without_times(answer) for answer in together] == [without_times(answer) for answer in alone]
    assert [row[: len(own)] for row, own in zip(rows, tokens_alone, strict=True)] == tokens_alone
    assert together[1]["finish_reason"] == "stop" and together[1]["output_tokens"] <= 5
    assert {BATCH_OF.fullmatch(answer["notes"][-1])[1] for answer in together} == {"3"}  # type: ignore[index]
    assert all(0 < answer["ttft_s"] <= answer["total_s"] for answer in together)


def test_written_conversations_are_answered_in_batches_too(checkpoint: Callable[[str], Path]) -> None:
    model = SpokenModel(setup(checkpoint("text_only"), batch=2))
    other = Prompt("other", [(SpokenTurn(None, "A rather longer question than the first one"), None)])
    together = answers(model, WRITTEN, other)
    assert [without_times(answer) for answer in together] == [
        without_times(answers(model, prompt)[0]) for prompt in (WRITTEN, other)
    ]


def test_filling_is_not_a_repetition(checkpoint: Callable[[str], Path]) -> None:
    """Token 0, which tokenizers fill with, is the likeliest one here, and no token may come twice."""
    zero_once = {"no_repeat_ngram_size": 1, "repetition_penalty": 1.1, "sequence_bias": {(0,): 20.0}}
    model = SpokenModel(setup(checkpoint("qwen2_audio"), batch=2, **zero_once))
    together = answers(model, *SEVERAL)
    assert [without_times(answer) for answer in together] == [
        without_times(answers(model, prompt)[0]) for prompt in SEVERAL
    ]


def test_a_model_whose_replies_change_in_a_batch_is_refused(checkpoint: Callable[[str], Path]) -> None:
    model = opened(checkpoint("recurrent"))
    assert ask(model, WRITTEN).text
    asyncio.run(model.close())
    with pytest.raises(UsageError, match=r"differently than one by one; leave out --model-arg batch\."):
        asyncio.run(opened(checkpoint("recurrent"), batch=2).preflight())


def test_a_broken_recording_leaves_its_neighbours_alone(loaded: Callable[[str], SpokenModel]) -> None:
    model = loaded("qwen2_audio")
    first, broken, last = answers(model, SEVERAL[0], BROKEN, SEVERAL[2])
    assert broken["error"] == "bad_request" and "cannot be decoded" in broken["detail"]
    assert [without_times(answer) for answer in (first, last)] == [
        without_times(answers(model, prompt)[0]) for prompt in (SEVERAL[0], SEVERAL[2])
    ]
    assert first["notes"] == ["answered in a batch of 2, whose times these are"]


def test_who_is_ready_when_time_is_up_has_answered(
    checkpoint: Callable[[str], Path],
    written: Callable[[SpokenModel], list[list[int]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = SpokenModel(setup(checkpoint("qwen2_audio"), max_new_tokens=60, batch=2))
    rows = written(model)
    for prompt in SEVERAL[:2]:
        answers(model, prompt)
    endless, ends = rows
    end = next(token for token in ends if token not in endless)
    monkeypatch.setattr(model._model.generation_config, "eos_token_id", [end])
    monkeypatch.setitem(model._generation, "max_new_tokens", 10_000)
    seconds = iter(range(10**9))
    monkeypatch.setattr("vivace.models.local.spoken_model.time.perf_counter", lambda: float(next(seconds)))
    slow, ready = answers(model, *SEVERAL[:2], timeout_s=50.0)
    assert slow == {"error": "timeout", "detail": "no complete reply within 50 s in a batch of 2"}
    assert ready["finish_reason"] == "stop" and ready["output_tokens"] == ends.index(end) + 1


def test_a_batch_that_fails_is_asked_for_one_by_one(
    loaded: Callable[[str], SpokenModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded("qwen2_audio")

    def fail(*_arguments: Any, **_keywords: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(model._model, "generate", fail)
    answer = _answer_or_error(model, local._request(list(SEVERAL), 60.0))
    assert answer == {"apart": "out of memory (OutOfMemoryError: CUDA out of memory)"}


def test_replies_asked_for_one_by_one_say_why(
    checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    too_small = (
        "import json, sys\n"
        'sys.stdin.readline(); print(\'{"ready": "it", "hears": true}\', flush=True)\n'
        "for line in sys.stdin:\n"
        "    request = json.loads(line)\n"
        "    reply = {'text': str(len(request.get('turns', ()))), 'finish_reason': 'stop', 'ttft_s': None,\n"
        "             'total_s': 1.0, 'notes': []}\n"
        "    print(json.dumps({'apart': 'out of memory'} if 'conversations' in request else reply), flush=True)\n"
    )
    monkeypatch.setattr(local.LocalModel, "worker", [sys.executable, "-c", too_small])
    model = opened(checkpoint("qwen2_audio"), batch=3)
    replies = asyncio.run(all_replies(model, SEVERAL))
    asyncio.run(model.close())
    assert [reply.text for reply in replies] == ["1", "3", "2"]
    note = "answered alone: a batch of 3 (--model-arg batch) failed with out of memory"
    assert {reply.detail for reply in replies} == {note}


@pytest.fixture(scope="module")
def batching(checkpoint: Callable[[str], Path]) -> Iterator[local.LocalModel]:
    """A Qwen2-Audio that answers three conversations at once."""
    opened_model = opened(checkpoint("qwen2_audio"), batch=3)
    yield opened_model
    asyncio.run(opened_model.close())


async def all_replies(model: local.LocalModel, prompts: tuple[Prompt, ...]) -> list[ModelReply]:
    await model.preflight()
    return await asyncio.gather(*(model.reply(prompt) for prompt in prompts))


def test_those_who_wait_together_are_answered_together(
    batching: local.LocalModel, loaded: Callable[[str], SpokenModel]
) -> None:
    calls: list[CallRecord] = []

    async def noted(prompt: Prompt) -> ModelReply:
        with recorded_calls() as own:
            reply = await batching.reply(prompt)
        calls.extend(own)
        return reply

    async def seven() -> list[ModelReply]:
        await batching.preflight()
        return await asyncio.gather(*(noted(SEVERAL[number % 3]) for number in range(7)))

    replies = asyncio.run(seven())
    alone = [ask(loaded("qwen2_audio"), prompt).text for prompt in SEVERAL]
    assert [reply.text for reply in replies] == [alone[number % 3] for number in range(7)]
    sizes = [BATCH_OF.fullmatch(reply.detail or "") for reply in replies]
    assert [found and found[1] for found in sizes] == ["3"] * 6 + [None], "the last one waited for nobody"
    counted = [answers(loaded("qwen2_audio"), prompt)[0] for prompt in SEVERAL]
    expected_tokens = sorted(
        (counted[number % 3]["input_tokens"], counted[number % 3]["output_tokens"]) for number in range(7)
    )
    assert sorted((call.input_tokens, call.output_tokens) for call in calls) == expected_tokens


def test_a_crash_fails_its_batch_and_no_more(batching: local.LocalModel) -> None:
    pid_of(batching)
    stopped = stop(batching)  # so that the first batch is at work when the process dies

    async def crash() -> list[ModelReply]:
        replies = asyncio.gather(*(batching.reply(prompt) for prompt in (*SEVERAL, SEVERAL[0])))
        await at_work(batching)
        os.kill(stopped, signal.SIGKILL)
        return await replies

    *failed, next_one = asyncio.run(crash())
    assert [reply.unscored for reply in failed] == [Unscored.SERVER_ERROR] * 3
    assert all("SIGKILL" in str(reply.detail) and "a batch of 3 (--model-arg batch)" in str(reply.detail)
               for reply in failed)  # fmt: skip
    assert next_one.text and next_one.unscored is None


def test_one_who_gives_up_does_not_end_the_batch_but_all_do(batching: local.LocalModel) -> None:
    pid = pid_of(batching)

    async def given_up(count: int) -> list[ModelReply | BaseException]:
        stopped = stop(batching)
        tasks = [asyncio.create_task(batching.reply(prompt)) for prompt in SEVERAL]
        await at_work(batching)
        for task in tasks[:count]:
            task.cancel()
        await asyncio.wait(tasks[:count])
        with suppress(ProcessLookupError):
            os.kill(stopped, signal.SIGCONT)
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, *others = asyncio.run(given_up(1))
    assert isinstance(first, asyncio.CancelledError)
    assert all(isinstance(reply, ModelReply) and reply.text for reply in others)
    assert pid_of(batching) == pid
    asyncio.run(given_up(3))
    assert pid_of(batching) != pid


# Text models


def test_a_text_model_is_refused_audio_but_takes_transcripts(checkpoint: Callable[[str], Path]) -> None:
    model = opened(checkpoint("text_only"))
    try:
        reply = ask(model, WRITTEN)
        assert reply.text
        assert "tokens, more than the 16 that the model was made for" in (reply.detail or "")
        with pytest.raises(UsageError, match=r"is not an audio model.*--audio transcript"):
            ask(model, conversation(*VOICES))
    finally:
        asyncio.run(model.close())


def test_an_audio_model_takes_transcripts_too(loaded: Callable[[str], SpokenModel]) -> None:
    assert ask(loaded("qwen2_audio"), WRITTEN).text


# Crashes and hangs


def test_a_slow_reply_is_a_timeout_and_the_model_stays(checkpoint: Callable[[str], Path]) -> None:
    slow = SpokenModel(setup(checkpoint("qwen2_audio"), max_new_tokens=100_000))
    answer = _answer_or_error(slow, local._request([conversation(*VOICES)], 0.5))
    assert answer == {"error": "timeout", "detail": "no complete reply within 0.5 s"}
    assert local._reply(answer, "it").unscored is Unscored.TIMEOUT


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("DefaultCPUAllocator: not enough memory")]
)
def test_out_of_memory_is_said(
    error: Exception, loaded: Callable[[str], SpokenModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: Any, **_keywords: Any) -> None:
        raise error

    monkeypatch.setattr(loaded("qwen2_audio")._model, "generate", fail)
    answer = _answer_or_error(loaded("qwen2_audio"), local._request([conversation(*VOICES)], 60.0))
    assert answer["error"] == "bad_request" and answer["detail"].startswith("out of memory (")


def test_one_conversation_at_a_time_and_the_loop_stays_free(model: local.LocalModel) -> None:
    async def many() -> tuple[list[ModelReply], list[CallRecord], int]:
        turns = 0
        calls: list[CallRecord] = []

        async def one() -> ModelReply:
            with recorded_calls() as own:
                reply = await model.reply(conversation(*VOICES))
            calls.extend(own)
            return reply

        await model.preflight()
        replies = asyncio.gather(*(one() for _ in range(4)))
        while not replies.done():
            await asyncio.sleep(0.01)
            turns += 1
        return await replies, calls, turns

    replies, calls, turns = asyncio.run(many())
    assert len({reply.text for reply in replies}) == 1 and replies[0].text
    assert len(calls) == 4
    assert turns > 3 * len(calls), "whoever blocks the loop leaves it a turn between two replies"


def test_a_crash_is_one_failed_item(model: local.LocalModel) -> None:
    before = ask(model, conversation(*VOICES))
    os.kill(pid_of(model), signal.SIGSEGV)
    with recorded_calls() as calls:
        failed = ask(model, conversation(*VOICES))
    assert (failed.text, failed.unscored) == (None, Unscored.SERVER_ERROR)
    assert "SIGSEGV" in (failed.detail or "")
    assert [call.error for call in calls] == [Unscored.SERVER_ERROR]
    assert ask(model, conversation(*VOICES)).text == before.text


def test_an_abandoned_request_ends_the_process(model: local.LocalModel) -> None:
    pid = pid_of(model)
    stop(model)  # so that the request is still in flight when it is dropped

    async def abandoned() -> None:
        task = asyncio.create_task(model.reply(conversation(*VOICES)))
        await at_work(model)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(abandoned())
    with suppress(psutil.NoSuchProcess):
        psutil.Process(pid).wait(timeout=120)
    assert pid_of(model) != pid


def test_a_hang_is_a_timeout(model: local.LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    pid_of(model)
    stop(model)
    monkeypatch.setattr(local, "GRACE_S", 0.25)
    monkeypatch.setattr(model, "_timeout_s", 0.25)
    reply = ask(model, conversation(*VOICES))
    assert (reply.text, reply.unscored) == (None, Unscored.TIMEOUT)
    assert "no answer in time" in (reply.detail or "")


def test_a_model_that_dies_of_every_request_is_given_up(
    checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    loads_and_dies = (
        'import sys; sys.stdin.readline(); print(\'{"ready": "it", "hears": true}\', flush=True)\n'
        "sys.stdin.readline(); sys.exit('a tensor has fallen over')"
    )
    monkeypatch.setattr(local.LocalModel, "worker", [sys.executable, "-c", loads_and_dies])
    model = opened(checkpoint("qwen2_audio"))
    for _ in range(local.MOST_DEATHS - 1):
        reply = ask(model, conversation(*VOICES))
        assert reply.unscored is Unscored.SERVER_ERROR
        assert reply.detail == "its process ended by itself with exit code 1 (a tensor has fallen over)"
    with pytest.raises(UnreachableError, match="failed 3 times in a row"):
        ask(model, conversation(*VOICES))
    asyncio.run(model.close())


def test_a_death_while_loading_is_no_answer(
    checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local.LocalModel, "worker", ["false"])
    model = opened(checkpoint("qwen2_audio"))
    with pytest.raises(UnreachableError, match="could not be loaded: its process ended by itself with exit code 1"):
        asyncio.run(model.preflight())
    asyncio.run(model.close())


def test_the_process_ends_with_the_one_that_started_it(checkpoint: Callable[[str], Path]) -> None:
    program = (
        "import asyncio, sys, time\n"
        "from vivace.models.client.calls import ChatOptions\n"
        "from vivace.models.adapters.local import LocalModel\n"
        f"model = LocalModel({str(checkpoint('qwen2_audio'))!r}, {{'device': 'cpu'}}, ChatOptions())\n"
        "asyncio.run(model.preflight())\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
        "print(model._process.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    child.wait(timeout=120)


# What is refused


def test_wrong_places_are_refused_with_a_sentence(tmp_path: Path, checkpoint: Callable[[str], Path]) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    file = tmp_path / "file.txt"
    file.write_text("")
    for place, sentence in (
        (tmp_path / "nowhere", "There is no folder"),
        (empty, "holds no config.json"),
        (file, "of what transformers saved, name the folder"),
    ):
        with pytest.raises(UsageError, match=sentence):
            opened(place)
    with pytest.raises(UsageError, match="leave out --api-base"):
        local.LocalModel(str(checkpoint("qwen2_audio")), {}, ChatOptions(api_base="http://127.0.0.1:1"))


def test_the_hub_has_to_answer_for_a_branch_but_not_for_a_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    commit = "0123456789abcdef0123456789abcdef01234567"
    with pytest.raises(UnreachableError, match="the model hub does not answer"):
        opened("some-lab/some-model@main")
    model = opened(f"some-lab/some-model@{commit}")
    assert model.identity.target == f"local:some-lab/some-model@{commit}"
    assert model.identity.content_sha256 is None and model.identity.name == "some-lab/some-model"
    with pytest.raises(UnreachableError, match="the model hub does not answer"):
        asyncio.run(model.preflight())


def test_pickles_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UsageError, match=r"holds no weights"):
        opened(tmp_path)
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UsageError, match=r"in a pickle \(pytorch_model.bin\)"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model_type": "nobodys", "auto_map": {"AutoConfig": "own.Config"}}, "code of its own"),
        ({"model_type": "nobodys"}, "config.json is not understood"),
        ({"model_type": "dinov2"}, "do not write text"),
    ],
)
def test_configurations_that_cannot_be_used(
    change: dict[str, Any], sentence: str, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = copied(checkpoint("text_only"), tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(RefusedError, match=sentence):
        SpokenModel(setup(folder))


OWN_CODE = """
import transformers
from pathlib import Path

Path(__file__).with_name("ran").touch()
Known = transformers.models.auto.configuration_auto.CONFIG_MAPPING[{known!r}]
KnownModel = transformers.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING[Known]


class OwnConfig(Known):
    model_type = "nobodys"


class OwnModel(KnownModel):
    config_class = OwnConfig
"""


def test_a_models_own_code_runs_where_the_operator_trusts_that_commit_and_nowhere_else(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = copied(checkpoint("text_only"), tmp_path / "own_code")
    config = json.loads((folder / "config.json").read_text())
    own = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}

    def write(auto_map: dict[str, str]) -> None:
        named = {**config, "model_type": "nobodys", "auto_map": auto_map}
        (folder / "config.json").write_text(json.dumps(named))

    (folder / "own.py").write_text(OWN_CODE.format(known=config["model_type"]))
    write(own)
    with pytest.raises(RefusedError, match="VIVACE_TRUST_REMOTE_CODE"):
        load_checkpoint(folder, "float32")
    assert not list(tmp_path.rglob("ran"))
    _, model = load_checkpoint(folder, "float32", trusted=True)
    assert type(model).__name__ == "OwnModel"
    write({**own, "AutoModelForCausalLM": "lab/other--own.OwnModel"})
    with pytest.raises(RefusedError, match="another repository"):
        load_checkpoint(folder, "float32", trusted=True)

    trusted, other = (f"lab/model@{digit * 40}" for digit in "ab")
    monkeypatch.setenv("VIVACE_TRUST_REMOTE_CODE", trusted)
    assert opened(trusted).identity.parameters["trust_remote_code"] is True
    assert "trust_remote_code" not in opened(other).identity.parameters
    with pytest.raises(UsageError, match="trust_remote_code"):
        opened(other, trust_remote_code=True)
    monkeypatch.setenv("VIVACE_TRUST_REMOTE_CODE", "lab/model@main")
    with pytest.raises(UsageError, match="all 40 digits"):
        opened(trusted)


def test_missing_weights_are_not_made_up(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    folder = copied(checkpoint("text_only"), tmp_path)
    weights = load_file(folder / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RefusedError, match=r"lacks 1 weights of a LlamaForCausalLM.*model\.norm\.weight"):
        SpokenModel(setup(folder))


def test_a_template_that_forgets_is_refused(tmp_path: Path) -> None:
    folder = tiny.qwen2_audio(tmp_path, template=tiny.FORGETFUL_TEMPLATE)
    with pytest.raises(RefusedError, match="leaves out the assistant's earlier answers"):
        SpokenModel(setup(folder))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(checkpoint: Callable[[str], Path]) -> None:
    with pytest.raises(UsageError, match="device=cuda:0 is asked for, but"):
        asyncio.run(opened(checkpoint("text_only"), device="cuda:0").preflight())


def test_missing_packages_are_named(checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model = opened(checkpoint("text_only"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'vivace\[local\]'"):
        asyncio.run(model.preflight())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"top_k": 3}, "cannot set 'top_k'.*it takes dtype, device"),
        ({"dtype": "int8"}, "auto, float32, bfloat16 or float16"),
        ({"device": "tpu"}, "auto, cpu, cuda or cuda:N"),
        ({"max_new_tokens": 0}, "a whole number from 1"),
        ({"batch": 0}, "a whole number from 1"),
        ({"batch": 2, "do_sample": True}, "exclude each other"),
        ({"do_sample": 1}, "true or false"),
        ({"temperature": 0.7}, "does nothing without --model-arg do_sample=true"),
        ({"do_sample": True, "temperature": 0}, "a number above 0"),
        ({"do_sample": True, "top_p": 1.5}, "up to 1"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], sentence: str, checkpoint: Callable[[str], Path]) -> None:
    with pytest.raises(UsageError, match=sentence):
        local.LocalModel(str(checkpoint("text_only")), arguments, ChatOptions())


# Identity


def test_identity_covers_weights_and_arguments_but_not_the_place(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    original = checkpoint("text_only")
    one = opened(original).identity
    moved = copied(original, tmp_path / "elsewhere" / "of another name")
    assert opened(moved).identity.fingerprint == one.fingerprint
    assert opened(original, max_new_tokens=5).identity.fingerprint != one.fingerprint
    assert opened(original, batch=2).identity.fingerprint != one.fingerprint
    assert opened(original, dtype="bfloat16").identity.fingerprint != one.fingerprint
    gpus = {opened(original, device=device).identity.fingerprint for device in ("cuda", "cuda:1")}
    assert len(gpus) == 1 and one.fingerprint not in gpus
    weights = moved / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-100] ^= 1
    weights.write_bytes(content)
    assert opened(moved).identity.fingerprint != one.fingerprint


def test_large_weights_are_hashed_in_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No longer in samples: whichever number was changed, it is another model."""
    monkeypatch.setattr(content_hash, "LARGE", 2**16)
    header = b'{"weight": 1}'
    content = len(header).to_bytes(8, "little") + header + np.random.default_rng(0).bytes(3 * 2**20)
    file = tmp_path / "model.safetensors"
    hashes = set()
    for place in (2**20 + 5, 2**20 + 2**15, 3 * 2**20 - 2**17):
        changed = bytearray(content)
        changed[place] ^= 1
        file.write_bytes(changed)
        hashes.add(checkpoint_sha256(tmp_path))
    for version in (content, content[:-1], content.replace(b"weight", b"height")):
        file.write_bytes(version)
        hashes.add(checkpoint_sha256(tmp_path))
    assert len(hashes) == 6


def copied(folder: Path, to: Path) -> Path:
    to.mkdir(parents=True, exist_ok=True)
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to
