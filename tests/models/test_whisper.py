"""`whisper:`: what may be written, the process that listens, and, where its weights are here, what Whisper hears."""

from __future__ import annotations

import asyncio
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from vivace.errors import UsageError
from vivace.models.adapters import whisper as adapter
from vivace.models.adapters.transcription import Transcriber, Transcription, is_free, open_transcriber
from vivace.models.client.calls import CallRecord, ChatOptions, recorded_calls
from vivace.models.hearing_check import digits_in
from vivace.spec import DialogueSpec
from vivace_rubrics.criteria import Unscored

OPTIONS = ChatOptions(timeout_s=60, retries=1)
REAL = "VIVACE_WHISPER_FOLDER"
"""The variable that names a folder with the real whisper-base, for the test that needs it."""

FAKE = """
import json
import sys
import time
from dataclasses import dataclass, field
from types import SimpleNamespace

__version__ = "0"


@dataclass
class Segment:
    text: str
    seek: int = 0
    compression_ratio: float = 1.0
    tokens: list = field(default_factory=lambda: [1, 2, 3])


class WhisperModel:
    supported_languages = ["de", "en"]

    def __init__(self, folder, device, compute_type, cpu_threads, local_files_only):
        if not open(folder + "/model.bin").read().startswith("weights"):
            raise RuntimeError("File model.bin is incomplete")
        self.model = SimpleNamespace(compute_type=compute_type, device="cpu")

    def transcribe(self, samples, *, max_new_tokens, **settings):
        print("a library's own words, on the wrong channel")
        seconds = len(samples) / 16000
        loudness = int(round(10 * float(abs(samples).max()))) if len(samples) else 0
        return self._segments(loudness, seconds, max_new_tokens, settings), None

    def _segments(self, loudness, seconds, most, settings):
        if loudness == 0:  # silence
            return
        if loudness == 1:
            yield Segment(" ... ")
        elif loudness == 2:  # a loop up to the bound
            yield Segment(" eight" * most, 0, 9.0, [8] * (most // 2 - 1))
        elif loudness == 3:  # a person who says one thing again and again, and comes to an end
            yield Segment(" ha" * 10, 0, 9.0, [8] * 10)
        elif loudness == 4:
            raise RuntimeError("boom")
        elif loudness == 5:  # slower than anybody waits for
            for _ in range(50):
                time.sleep(0.01)
                yield Segment(" and")
        else:
            yield Segment(f" {seconds:.1f} s, ")
            yield Segment(f" at most {most}, " + json.dumps(settings, sort_keys=True), 3000)
"""


def wav(loudness: float, seconds: float = 0.5) -> bytes:
    """A WAV file of one level, by which the fake knows what to hear."""
    buffer = io.BytesIO()
    soundfile.write(buffer, np.full(int(seconds * 24_000), loudness), 24_000, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def heard_by(transcriber: Transcriber, *wavs: bytes) -> tuple[list[Transcription], list[CallRecord]]:
    """What a transcriber writes down of these recordings, and the calls that took."""

    async def work() -> tuple[list[Transcription], list[CallRecord]]:
        try:
            with recorded_calls() as calls:
                await transcriber.preflight()
                return [await transcriber.transcribe(one) for one in wavs], calls
        finally:
            await transcriber.close()

    return asyncio.run(work())


@pytest.fixture
def converted(tmp_path: Path) -> Path:
    """The files of a converted model, without a model in them."""
    folder = tmp_path / "models" / "ear"
    folder.mkdir(parents=True)
    for name, text in {
        "config.json": "{}",
        "model.bin": "weights",
        "tokenizer.json": "{}",
        "vocabulary.txt": "a",
    }.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `faster_whisper` for the process that listens."""
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "faster_whisper.py").write_text(FAKE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"))
    monkeypatch.setattr(adapter.HeldWhisper, "needs", ())


@pytest.mark.usefixtures("fake")
def test_what_it_hears_is_written_down_and_every_failure_has_its_reason(converted: Path) -> None:
    transcriber = open_transcriber(f"whisper(beam_size=2,language=de):{converted}", OPTIONS)
    levels = (0.9, 0.0, 0.1, 0.2, 0.3, 0.4)
    heard, calls = heard_by(transcriber, *(wav(level) for level in levels), b"no sound", wav(0.9, 60))
    settings = {
        "beam_size": 2, "condition_on_previous_text": False, "language": "de", "temperature": 0.0, "vad_filter": True,
        "without_timestamps": True,
    }  # fmt: skip
    assert heard[0].text == f"0.5 s, at most 50, {json.dumps(settings)}"
    assert [one.unscored for one in heard] == [
        None, Unscored.EMPTY, Unscored.EMPTY, Unscored.UNREADABLE, None, Unscored.BAD_REQUEST, Unscored.BAD_REQUEST,
        None,
    ]  # fmt: skip
    assert [one.text is None for one in heard] == [one.unscored is not None for one in heard]
    assert all(one.detail for one in heard if one.unscored)
    assert heard[3].detail is not None
    assert "went round in circles" in heard[3].detail
    assert len(heard[3].detail) < 200
    assert heard[4].text == " ".join(["ha"] * 10)
    assert "at most 440" in (heard[7].text or "")  # of each half minute, however long the recording
    assert [(call.stage, call.error, call.cost_usd) for call in calls] == [
        ("transcribe", one.unscored, 0.0) for one in heard
    ]


@pytest.mark.usefixtures("fake")
def test_a_recording_that_takes_too_long_is_given_up(converted: Path) -> None:
    transcriber = open_transcriber(f"whisper:{converted}", ChatOptions(timeout_s=0.05))
    [slow, next_one], _ = heard_by(transcriber, wav(0.5), wav(0.9))
    assert slow.unscored is Unscored.TIMEOUT
    assert next_one.text is not None  # by the same process


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(
    ("settings", "weights", "words"),
    [("", "half", "cannot be loaded .*incomplete"), ("(language=xx)", "weights", "does not know the language 'xx'")],
)
def test_what_cannot_be_loaded_is_a_sentence(settings: str, weights: str, words: str, converted: Path) -> None:
    (converted / "model.bin").write_text(weights)
    with pytest.raises(UsageError, match=words):
        heard_by(open_transcriber(f"whisper{settings}:{converted}", OPTIONS))


def test_without_faster_whisper_the_extra_is_named(converted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter.HeldWhisper, "needs", ("faster_whisper_that_is_not_here",))
    with pytest.raises(UsageError, match=r"pip install 'vivace\[packaged\]'"):
        heard_by(open_transcriber(f"whisper:{converted}", OPTIONS))


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("whisper:", "write it as ADAPTER:NAME"),
        ("whisper(beam_size=2)", "write it as ADAPTER:NAME"),
        ("whisper:nowhere", "There is no folder 'nowhere'.*packaged:whisper-base"),
        ("whisper:smal", "did you mean 'small'"),
        ("whisper:someone/ear", "HUB-ID@REVISION"),
        ("whisper:packaged:whisper-huge", "there is packaged:whisper-base"),
        ("whisper:packaged:whisper-base", "vivace models get whisper-base"),
        ("whisper:base+base", "whisper"),
        ("whisper(beam=2):base", "no setting 'beam'"),
        ("whisper(beam_size=0):base", "from 1 to"),
        ("whisper(beam_size=many):base", "beam_size"),
        ("whisper(compute_type=int3):base", "must be one of int8"),
        ("whisper(beam_size=2:base", "does not close it"),
    ],
)
def test_a_target_that_names_no_ear_is_a_sentence(target: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words):
        open_transcriber(target, OPTIONS, tmp_path)


@pytest.mark.parametrize("missing", ["config.json", "model.bin", "tokenizer.json", "vocabulary.txt"])
@pytest.mark.parametrize("is_there", [True, False], ids=["empty", "not there"])
def test_a_damaged_folder_is_a_sentence(missing: str, is_there: bool, converted: Path) -> None:
    (converted / missing).unlink()
    if is_there:
        (converted / missing).touch()
    with pytest.raises(UsageError, match=f"lacks {missing.partition('.')[0]}"):
        open_transcriber(f"whisper:{converted}", OPTIONS)


def test_what_makes_it_another_ear_is_its_identity(
    converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def identity(target: str) -> dict[str, Any]:
        return open_transcriber(target, OPTIONS, tmp_path).identity

    own = identity(f"whisper:{converted}")
    assert str(converted) not in json.dumps(own)
    assert (own["language"], own["beam_size"], own["compute_type"]) == ("en", 5, "int8")
    for settings in ("language=auto", "beam_size=1", "compute_type=float32"):
        assert identity(f"whisper({settings}):{converted}") != own
    packaged = tmp_path / "packaged" / "whisper-base"
    packaged.parent.mkdir()
    converted.rename(packaged)
    monkeypatch.setattr("vivace.models.packaged._wrong_file", lambda folder, model: None)
    assert identity("whisper:packaged:whisper-base") == own  # the same files
    monkeypatch.undo()
    with pytest.raises(UsageError, match="its SHA-256 differs"):
        identity("whisper:packaged:whisper-base")
    (packaged / "vocabulary.txt").write_text("b")
    assert identity(f"whisper:{packaged}") != own
    commit = "ebe41f70d5b6dfa9166e2c581c45c9c0cfc57b66"
    assert identity("whisper:base")["target"] == f"whisper:Systran/faster-whisper-base@{commit}"
    assert identity(f"whisper:base@{'0' * 40}")["target"] != identity("whisper:base")["target"]


def test_it_costs_nothing_and_is_found_from_anywhere(converted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_free("whisper(beam_size=1):base")
    assert not is_free("litellm:openai/whisper-1")
    monkeypatch.chdir(converted.parent)
    for written, found in {
        "whisper(beam_size=1):ear": f"whisper(beam_size=1):{converted}",
        "local:ear": f"local:{converted}",
        "whisper:base": "whisper:base",
        "litellm:openai/whisper-1": "litellm:openai/whisper-1",
    }.items():
        spec = DialogueSpec(track="audio-multichallenge", data="demo", model="litellm:a/b", transcriber=written)
        assert spec.with_absolute_paths().transcriber == found


@pytest.mark.full
@pytest.mark.skipif(not os.environ.get(REAL), reason=f"needs the real whisper-base: name its folder in {REAL}")
def test_the_real_whisper_hears_spoken_numbers_and_nothing_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    from vivace.audio.digits import read_digits, silence

    monkeypatch.setattr("vivace.audio.digits.secrets.choice", lambda recordings: recordings[0])  # the same each time
    digits = read_digits()
    numbers = ["4071", "2938", "5516", "8640"]
    transcriber = open_transcriber(f"whisper:{os.environ[REAL]}", OPTIONS)
    heard, _ = heard_by(transcriber, silence(3), *(digits.say(number) for number in numbers))
    assert heard[0].unscored is Unscored.EMPTY
    right = [digits_in(one.text or "") == number for number, one in zip(numbers, heard[1:], strict=True)]
    assert sum(right) >= 3
