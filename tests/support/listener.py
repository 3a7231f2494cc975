"""Servers that really listen: spoken digits are recognised in the recordings they are sent."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.signal import fftconvolve

from support.chat_server import Answer, Call
from vivace.audio.convert import MODEL_RATE, decode, to_mono
from vivace.audio.digits import VOICED, read_digits

Samples = npt.NDArray[np.float64]
PAUSE = int(0.15 * MODEL_RATE)
QUIET = 0.004


@cache
def _templates(folder: Path) -> list[tuple[str, Samples]]:
    speakers = read_digits(folder).speakers.values()
    return [
        (digit, samples / np.linalg.norm(samples))
        for recordings in speakers
        for digit, spoken in recordings.items()
        for samples in spoken
    ]


def digits_heard(recording: bytes, folder: Path = VOICED) -> str:
    """The digits spoken in a recording, by comparing each stretch of sound with every known one."""
    samples = to_mono(decode(recording))
    loud = np.flatnonzero(np.abs(samples) > QUIET)
    if len(loud) == 0:
        return ""
    stretches = np.split(loud, np.flatnonzero(np.diff(loud) > PAUSE) + 1)
    return "".join(_nearest(samples[stretch[0] : stretch[-1] + 1], folder) for stretch in stretches)


def _nearest(sound: Samples, folder: Path) -> str:
    def likeness(template: Samples) -> float:
        return float(np.max(np.abs(fftconvolve(sound, template[::-1])))) / float(np.linalg.norm(sound))

    return max(_templates(folder), key=lambda template: likeness(template[1]))[0]


def recordings(call: Call) -> list[bytes]:
    """The recordings in a chat request, in order."""
    parts = [part for message in call.messages if isinstance(message["content"], list) for part in message["content"]]
    return [base64.b64decode(part["input_audio"]["data"]) for part in parts if part["type"] == "input_audio"]


def listener(
    hears: Callable[[Sequence[bytes]], Sequence[bytes]] = lambda sent: sent, folder: Path = VOICED
) -> Callable[[Call], Answer]:
    """A server's behaviour: it writes down, line by line, the digits of what it hears of the recordings sent."""

    def behave(call: Call) -> Answer:
        numbers = [digits_heard(recording, folder) for recording in hears(recordings(call))]
        return Answer("\n".join(number or "none" for number in numbers) or "I heard nothing.")

    return behave


def from_a_cache(behave: Callable[[Call], Answer]) -> Callable[[Call], Answer]:
    """The same behaviour behind a cache that looks at what is written and not at what is spoken."""
    answers: dict[str, Answer] = {}

    def cached(call: Call) -> Answer:
        key = repr([_without_sound(message) for message in call.messages])
        if key not in answers:
            answers[key] = behave(call)
        return answers[key]

    return cached


def _without_sound(message: dict[str, Any]) -> Any:
    content = message["content"]
    return content if isinstance(content, str) else [part.get("text") for part in content]
