"""Makes the demo conversations from their written source, so that every sound in them can be made again.

Speech is espeak-ng, resampled with soxr and mixed with pydub; the other sounds are synthesised here with
numpy. The same tools give the same bytes: noise is seeded by the conversation's id, and nothing of the
machine or the day gets into the file.

Run as `python -m vivace.demo.build [--out FILE]`; needs `espeak-ng` on the PATH.
"""

from __future__ import annotations

import argparse
import json
import platform
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
import soxr
import yaml

from vivace.audio.voice import encode_mp3, espeak, espeak_version
from vivace.demo import DATA
from vivace.tracks.dialogue.data.writer import public_schema
from vivace_rubrics.checks import parse_check

with warnings.catch_warnings():
    # pydub warns when it finds no ffmpeg, which only its own reading and writing of files would need.
    warnings.simplefilter("ignore")
    from pydub import AudioSegment

SOURCE = Path(__file__).with_name("conversations.yaml")
SAMPLE_RATE = 24_000
TOOLS_KEY = b"vivace.demo.tools"
"""Key in the parquet file's schema metadata: a JSON object of the tools that made the file."""

SPEECH_DBFS = -26.0  # so low that two voices and a sound on top of each other never clip in the mix
PEAK_DBFS = -3.0
ROOM_TONE_DB = -45.0
MARGIN_MS = 250

Samples = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Voice:
    """How one speaker sounds: an espeak-ng voice with its variant, words a minute, and pitch from 0 to 99."""

    espeak: str
    rate: int
    pitch: int


@dataclass(frozen=True)
class Clip:
    """A stretch of speech in one breath; its fields are explained in `conversations.yaml`."""

    text: str
    voice: str = ""
    rate: int = 0
    pitch: int = 0
    gap_ms: int = 140
    cut_word: str = ""
    cut_ms: int = 0
    gain_db: float = 0.0

    @property
    def spoken(self) -> str:
        """What the voice is given: the text, with a word that will be cut off in full."""
        return f"{self.text.rsplit(maxsplit=1)[0]} {self.cut_word}" if self.cut_word else self.text


@dataclass(frozen=True)
class Sound:
    """A synthesised sound: when it starts (see `conversations.yaml`), length and its level over speech."""

    name: str
    seconds: float
    level_db: float
    offset_s: float
    after: int | None = None


@dataclass(frozen=True)
class ScriptedTurn:
    """A user turn and the assistant turn that follows it (None after the last)."""

    clips: tuple[Clip, ...]
    sounds: tuple[Sound, ...]
    assistant: str | None

    @property
    def transcript(self) -> str:
        """What is spoken, word for word, by every voice in the turn; sounds are not in it."""
        return " ".join(clip.text for clip in self.clips)


@dataclass(frozen=True)
class ScriptedConversation:
    """One conversation of the set, with its criteria and the check beside each."""

    id: str
    axis: str
    voice: str
    turns: tuple[ScriptedTurn, ...]
    rubric: tuple[str, ...]
    checks: tuple[dict[str, Any], ...]


# Sounds: each gives samples from -1 to 1 at SAMPLE_RATE; what is random in one comes from `rng` alone.


def _time(seconds: float) -> Samples:
    return np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE


def _band(samples: Samples, low_hz: float, high_hz: float) -> Samples:
    """The samples with what lies outside a band of frequencies taken out."""
    spectrum = np.fft.rfft(samples)
    frequencies = np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE)
    edges = 1 / (1 + (low_hz / np.maximum(frequencies, 1)) ** 4) / (1 + (frequencies / high_hz) ** 4)
    inside: Samples = np.fft.irfft(spectrum * edges, len(samples))
    return inside


def _to_peak(samples: Samples) -> Samples:
    scaled: Samples = samples / np.max(np.abs(samples))
    return scaled


def doorbell(rng: np.random.Generator, seconds: float) -> Samples:
    """A ding and a lower dong, each a few decaying sine partials of a struck bar."""
    time = _time(seconds)
    out = np.zeros_like(time)
    for start, pitch in ((0.0, 659.3), (0.75, 523.3)):
        since = time - start
        for ratio, gain, decay in ((1.0, 1.0, 2.2), (2.76, 0.35, 4.5), (5.4, 0.12, 9.0)):
            partial = gain * np.sin(2 * np.pi * pitch * ratio * since) * np.exp(-decay * np.maximum(since, 0))
            out += np.where(since >= 0, partial, 0)
    return _to_peak(out)


def rain(rng: np.random.Generator, seconds: float) -> Samples:
    """Steady high-passed noise under many single drops, each a short burst of noise at its own pitch."""
    time = _time(seconds)
    out = 0.12 * _band(rng.standard_normal(len(time)), 900, 9_000)
    for start in rng.uniform(0, seconds - 0.03, size=round(seconds * 45)):
        drop = time[: round(0.02 * SAMPLE_RATE)]
        pitch, gain = rng.uniform(1_500, 6_000), rng.uniform(0.1, 0.9) ** 2
        first = round(start * SAMPLE_RATE)
        out[first : first + len(drop)] += gain * np.sin(2 * np.pi * pitch * drop) * np.exp(-260 * drop)
    return _to_peak(out)


def kettle(rng: np.random.Generator, seconds: float) -> Samples:
    """The growing rumble of bubbling water, then a whistle that slides up to three kilohertz and stays."""
    time = _time(seconds)
    progress = time / seconds
    bubbling = 1 + 0.6 * np.sin(2 * np.pi * 11 * time + 3 * np.sin(2 * np.pi * 0.9 * time))
    rumble = _band(rng.standard_normal(len(time)), 150, 900) * progress * bubbling * 0.16
    opening = np.clip((progress - 0.45) / 0.25, 0, 1)
    pitch = 1_700 + 1_250 * opening + 18 * np.sin(2 * np.pi * 6 * time)
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    breath = 0.15 * _band(rng.standard_normal(len(time)), 2_200, 6_000)
    whistle = opening**2 * (np.sin(phase) + 0.25 * np.sin(2 * phase) + breath)
    return _to_peak(rumble + 0.7 * whistle)


def laugh(rng: np.random.Generator, seconds: float) -> Samples:
    """A row of falling "ha" pulses: breath noise, then a buzz through the formants of an open vowel."""
    time = _time(seconds)
    out = np.zeros_like(time)
    count = max(3, round(seconds / 0.24))
    for index in range(count):
        syllable = _time(0.2)
        fade = 1 - 0.6 * index / count
        pitch = (190 - 60 * index / count) * (1 - 0.12 * syllable / 0.2)
        buzz = 2 * ((np.cumsum(pitch) / SAMPLE_RATE) % 1) - 1
        voiced = sum(
            (gain * _band(buzz, hz * 0.85, hz * 1.15) for hz, gain in ((730, 1.0), (1_250, 0.7), (2_500, 0.3))),
            np.zeros_like(syllable),
        )
        attack = np.clip((syllable - 0.05) / 0.03, 0, 1) * np.exp(-9 * syllable)
        breath = 0.03 * _band(rng.standard_normal(len(syllable)), 600, 5_000) * np.exp(-14 * syllable)
        first = round(index * (seconds - 0.22) / count * SAMPLE_RATE)
        out[first : first + len(syllable)] += fade * (voiced * attack + breath)
    return _to_peak(out)


def train(rng: np.random.Generator, seconds: float) -> Samples:
    """Low noise that swells and fades, double knocks of wheels on rail joints, and a falling horn."""
    time = _time(seconds)
    middle = seconds / 2
    swell = np.exp(-(((time - middle) / (0.3 * seconds)) ** 2))
    out = swell * _band(rng.standard_normal(len(time)), 60, 700)
    for pair in np.arange(0.2, seconds - 0.4, 0.62):
        for knock in (pair, pair + 0.14):
            since = np.maximum(time - knock, 0)
            out += swell * np.where(time >= knock, 2.2 * np.exp(-55 * since) * np.sin(2 * np.pi * 180 * since), 0)
    falling = 1.06 - 0.12 / (1 + np.exp(-4 * (time - middle)))
    sounding = np.clip((time - middle + 1.3) / 0.1, 0, 1) * np.clip((middle + 0.6 - time) / 0.2, 0, 1)
    for note in (311.1, 370.0, 466.2):
        phase = 2 * np.pi * np.cumsum(note * falling) / SAMPLE_RATE
        out += 0.45 * sounding * (np.sin(phase) + 0.5 * np.sin(2 * phase) + 0.3 * np.sin(3 * phase))
    return _to_peak(out)


SOUNDS: dict[str, Callable[[np.random.Generator, float], Samples]] = {
    "doorbell": doorbell,
    "kettle": kettle,
    "laugh": laugh,
    "rain": rain,
    "train": train,
}


# Speech and mixing.


def _segment(samples: Samples) -> AudioSegment:
    pcm = np.round(np.clip(samples, -1, 1) * 32_767).astype("<i2")
    return AudioSegment(data=pcm.tobytes(), sample_width=2, frame_rate=SAMPLE_RATE, channels=1)


def _samples(segment: AudioSegment) -> Samples:
    return np.frombuffer(segment.raw_data, dtype="<i2").astype(np.float64) / 32_768


def _at_level(segment: AudioSegment, dbfs: float) -> AudioSegment:
    return segment.apply_gain(dbfs - segment.dBFS)


def speak(text: str, voice: Voice) -> Samples:
    """What espeak-ng says, at SAMPLE_RATE, without the silence around it.

    Raises `VoiceError` with espeak-ng's own words when it cannot speak the text.
    """
    recording = espeak(text, voice.espeak, voice.rate, voice.pitch)
    spoken = recording.samples[:, 0]
    loud = np.flatnonzero(np.abs(spoken) > 0.01 * np.max(np.abs(spoken)))
    return np.asarray(soxr.resample(spoken[loud[0] : loud[-1] + 1], recording.rate, SAMPLE_RATE, quality="HQ"))


def _clip_segment(clip: Clip, voice: Voice) -> AudioSegment:
    changed = Voice(voice.espeak, voice.rate + clip.rate, voice.pitch + clip.pitch)
    segment = _at_level(_segment(speak(clip.spoken, changed) * 0.5), SPEECH_DBFS + clip.gain_db)
    if clip.cut_ms:
        return segment[: -clip.cut_ms].fade_out(15)
    return segment.fade_in(5).fade_out(5)


def speech_and_sounds(
    turn: ScriptedTurn, voices: dict[str, Voice], voice: str, seed: int
) -> tuple[AudioSegment, AudioSegment]:
    """The two halves of a turn's mix: all that is spoken, and all other sounds with the room tone."""
    rng = np.random.default_rng(seed)
    placed: list[tuple[int, AudioSegment]] = []
    cursor_ms = MARGIN_MS
    ends_ms: list[int] = []
    for index, clip in enumerate(turn.clips):
        segment = _clip_segment(clip, voices[clip.voice or voice])
        start_ms = cursor_ms + (clip.gap_ms if index else 0)
        placed.append((start_ms, segment))
        cursor_ms = start_ms + len(segment)
        ends_ms.append(cursor_ms)
    heard: list[tuple[int, AudioSegment]] = []
    for sound in turn.sounds:
        start_ms = round(sound.offset_s * 1000) + (0 if sound.after is None else ends_ms[sound.after])
        segment = _at_level(_segment(SOUNDS[sound.name](rng, sound.seconds) * 0.5), SPEECH_DBFS + sound.level_db)
        heard.append((start_ms, segment.fade_in(30).fade_out(200)))
    length_ms = max(start_ms + len(segment) for start_ms, segment in placed + heard) + MARGIN_MS
    silence = AudioSegment.silent(length_ms, frame_rate=SAMPLE_RATE)
    tone = _segment(0.1 * _band(rng.standard_normal(len(_samples(silence))), 80, 3_000))
    return _overlaid(silence, placed), _overlaid(_at_level(tone, SPEECH_DBFS + ROOM_TONE_DB), heard)


def _overlaid(base: AudioSegment, placed: list[tuple[int, AudioSegment]]) -> AudioSegment:
    for start_ms, segment in placed:
        base = base.overlay(segment, position=start_ms)
    return base


def voiced_turn(turn: ScriptedTurn, voices: dict[str, Voice], voice: str, seed: int) -> bytes:
    """One user turn as an MP3 file (mono, SAMPLE_RATE), its highest peak at about PEAK_DBFS."""
    speech, sounds = speech_and_sounds(turn, voices, voice, seed)
    mix = speech.overlay(sounds)
    mix = mix.apply_gain(PEAK_DBFS - mix.max_dBFS)
    return encode_mp3(_samples(mix), SAMPLE_RATE, compression=0.9)


# The file.


def _clip(data: str | dict[str, Any]) -> Clip:
    return Clip(text=data) if isinstance(data, str) else Clip(**data)


def _turn(data: dict[str, Any]) -> ScriptedTurn:
    said = data["say"]
    return ScriptedTurn(
        clips=tuple(map(_clip, said if isinstance(said, list) else [said])),
        sounds=tuple(Sound(**sound) for sound in data.get("sounds", ())),
        assistant=data.get("assistant"),
    )


def read_source(source: Path = SOURCE) -> tuple[dict[str, Voice], tuple[ScriptedConversation, ...]]:
    """The voices and conversations as written; a check that cannot be read raises `CheckError`."""
    data = yaml.safe_load(source.read_text(encoding="utf-8"))
    voices = {name: Voice(**voice) for name, voice in data["voices"].items()}
    conversations = tuple(
        ScriptedConversation(
            id=entry["id"],
            axis=entry["axis"],
            voice=entry["voice"],
            turns=tuple(map(_turn, entry["turns"])),
            rubric=tuple(item["criterion"] for item in entry["rubric"]),
            checks=tuple(item["check"] for item in entry["rubric"]),
        )
        for entry in data["conversations"]
    )
    for conversation in conversations:
        for check in conversation.checks:
            parse_check(check)
    return voices, conversations


def _row(conversation: ScriptedConversation, voices: dict[str, Voice]) -> dict[str, object]:
    row: dict[str, object] = {"id": conversation.id, "axis": conversation.axis}
    for number, turn in enumerate(conversation.turns, start=1):
        seed = zlib.crc32(f"{conversation.id} {number}".encode())
        row[f"user_turn_{number}_audio"] = {
            "bytes": voiced_turn(turn, voices, conversation.voice, seed),
            "path": f"{conversation.id}_user_turn_{number}.mp3",
        }
        row[f"user_turn_{number}_transcript"] = turn.transcript
        if turn.assistant is not None:
            row[f"assistant_turn_{number}_transcript"] = turn.assistant
    row["rubric"] = json.dumps(conversation.rubric, ensure_ascii=False)
    row["rubric_checks"] = json.dumps(conversation.checks, ensure_ascii=False)
    return row


def tools_here() -> dict[str, str]:
    """Versions of everything that has a say in the bytes; raises `FileNotFoundError` without espeak-ng."""
    return {
        "espeak-ng": espeak_version(),
        "libsndfile": soundfile.__libsndfile_version__,
        "machine": platform.machine(),
        **{name: version(name) for name in ("datasets", "numpy", "pyarrow", "pydub", "soxr")},
    }


def build(out: Path) -> None:
    """Write the whole set to `out` as one parquet file with a row per conversation."""
    voices, conversations = read_source()
    rows = [_row(conversation, voices) for conversation in conversations]
    schema = public_schema(SAMPLE_RATE, checks=True, metadata={TOOLS_KEY: json.dumps(tools_here()).encode()})
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), out, compression="zstd")


def main() -> None:
    """Build the set from the command line."""
    parser = argparse.ArgumentParser(prog="python -m vivace.demo.build", description="Make the demo conversations.")
    parser.add_argument("--out", type=Path, default=DATA, help="the parquet file to write (the packaged one)")
    build(parser.parse_args().out)


if __name__ == "__main__":
    main()
