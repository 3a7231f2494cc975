"""The process that holds a `whisper:` transcriber: faster-whisper, bounded in what it writes and in its time."""

from __future__ import annotations

import base64
import math
import os
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from vivace.audio.convert import decode, to_mono
from vivace.models.local.failures import RefusedError, short
from vivace.models.local.service import serve

RATE = 16_000
"""Samples a second, as Whisper takes them."""
WINDOW_S = 30
"""What Whisper hears at once."""
MOST_TOKENS = 220
"""Of one window, as in Whisper's own decoding: half of its context, less what begins a transcript."""
TOKENS_A_SECOND = 10
"""More than anybody says; half as many again as the fastest speech."""
SPARE_TOKENS = 20
LOOP_RATIO = 2.4
"""How far a text that goes round in circles can be compressed at least, by Whisper's own measure."""
MOST_THREADS = 8


class WhisperEar:
    """A Whisper model of CTranslate2, ready to write.

    Args:
        setup: `folder`, `language`, `beam_size`, `compute_type`, `device`.

    Raises:
        RefusedError: the model cannot be loaded, or does not know the language.
    """

    hears = True

    def __init__(self, setup: dict[str, Any]) -> None:
        import faster_whisper

        self._version = faster_whisper.__version__
        try:
            self._model = faster_whisper.WhisperModel(
                str(Path(setup["folder"])),
                device=setup["device"],
                compute_type=setup["compute_type"],
                cpu_threads=min(len(os.sched_getaffinity(0)), MOST_THREADS),
                local_files_only=True,
            )
        except Exception as error:
            raise RefusedError(f"it cannot be loaded ({short(error)})") from error
        self._language = None if setup["language"] == "auto" else setup["language"]
        if self._language not in (None, *self._model.supported_languages):
            raise RefusedError(f"it does not know the language '{self._language}'; write language=en, or auto")
        self._beam_size = setup["beam_size"]

    @property
    def description(self) -> str:
        """What runs, and on what."""
        model = self._model.model
        return f"Whisper, {model.compute_type} on {model.device}, faster-whisper {self._version}"

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """What is said in the recording of the request's only turn.

        Nothing is drawn at random, and no window is told what was heard before it, so that a mistake stays where it
        is. What holds no voice is left out before Whisper, which hears words in silence, gets to it.
        """
        started = time.perf_counter()
        [turn] = request["turns"]
        samples = to_mono(decode(base64.b64decode(turn["audio"])), RATE).astype(np.float32)
        most = min(MOST_TOKENS, SPARE_TOKENS + math.ceil(TOKENS_A_SECOND * len(samples) / RATE))
        segments, _ = self._model.transcribe(
            samples,
            language=self._language,
            beam_size=self._beam_size,
            temperature=0.0,
            condition_on_previous_text=False,
            vad_filter=True,
            # Marks of time tell where to cut a long recording; in a short one they only mislead: of spoken numbers,
            # whisper-base gets more right without them.
            without_timestamps=len(samples) <= WINDOW_S * RATE,
            max_new_tokens=2 * most,  # CTranslate2 ends at half of the length that it is given
        )
        heard = []
        for segment in segments:  # each is worked out when it is asked for
            if time.perf_counter() - started > request["timeout_s"]:
                return {"error": "timeout", "detail": f"no end after {request['timeout_s']:g} s of transcribing"}
            heard.append(segment)
        text = " ".join(segment.text.strip() for segment in heard).strip()
        if not any(character.isalnum() for character in text):
            return {"error": "empty", "detail": "nothing was heard in it"}
        if _goes_round(heard, most):
            return {"error": "unreadable", "detail": f"the transcriber went round in circles: {text[:100]}"}
        return {
            "text": text,
            "finish_reason": "stop",
            "ttft_s": None,
            "total_s": time.perf_counter() - started,
            "output_tokens": sum(len(segment.tokens) for segment in heard),
            "notes": [],
        }


def _goes_round(segments: Iterable[Any], most: int) -> bool:
    """Whether some window was ended by the bound on its tokens while it repeated itself.

    Both are needed: a person, too, may say the same thing again and again, but comes to an end.
    """
    tokens: Counter[int] = Counter()
    for segment in segments:
        if segment.compression_ratio > LOOP_RATIO:
            tokens[segment.seek] += len(segment.tokens)
    # The marks of time at both ends of a window are not always among its segments' tokens.
    return any(count >= most - 2 for count in tokens.values())


if __name__ == "__main__":
    serve(WhisperEar)
