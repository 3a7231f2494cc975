"""Spoken digits, put together to numbers that nobody can guess and only a listener can repeat."""

from __future__ import annotations

import itertools
import re
import secrets
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vivace.audio.convert import MODEL_RATE, AudioError, decode, encode_wav, to_mono
from vivace.errors import UsageError

VOICED = Path(__file__).with_name("digits")
"""Four voices of espeak-ng; `scripts/voice-digits` makes them."""
LEAD_S = 0.3
"""Silence before and after a number."""
GAP_S = 0.22
"""Silence between two digits: people read numbers out like this, and recognisers tell the digits apart."""

Samples = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SpokenDigits:
    """Recordings of single digits, several by each speaker.

    Attributes:
        speakers: speaker → digit → recordings, each float64 of shape (frames,) at 16 kHz.
    """

    speakers: Mapping[str, Mapping[str, list[Samples]]]

    def say(self, number: str) -> bytes:
        """A number spoken digit by digit by one of the speakers, as a 16 kHz mono WAV."""
        return next(self.voicings(number))

    def voicings(self, number: str) -> Iterator[bytes]:
        """The same by one speaker after the other in a random order, and round again, without an end."""
        speakers = sorted(self.speakers)
        secrets.SystemRandom().shuffle(speakers)
        for speaker in itertools.cycle(speakers):
            yield self._said(number, self.speakers[speaker])

    def _said(self, number: str, recordings: Mapping[str, list[Samples]]) -> bytes:
        lead, gap = np.zeros(int(LEAD_S * MODEL_RATE)), np.zeros(int(GAP_S * MODEL_RATE))
        pieces = [lead]
        for digit in number:
            pieces += [secrets.choice(recordings[digit]), gap]
        return encode_wav(np.concatenate([*pieces, lead]), MODEL_RATE)


def silence(seconds: float) -> bytes:
    """Digital silence as a 16 kHz mono WAV."""
    return encode_wav(np.zeros(int(seconds * MODEL_RATE)), MODEL_RATE)


def read_digits(folder: Path = VOICED) -> SpokenDigits:
    """The digits of a folder: one recording a file, named `DIGIT_SPEAKER_NUMBER` as the Free Spoken Digit
    Dataset names them. Speakers who lack a digit are left out.

    Raises:
        UsageError: there is no such folder, no speaker in it has all ten, or a file is no recording.
    """
    return _voiced() if folder == VOICED else _read(folder)


@cache
def _voiced() -> SpokenDigits:
    return _read(VOICED)


def _read(folder: Path) -> SpokenDigits:
    if not folder.is_dir():
        raise UsageError(f"There is no folder '{folder}' of spoken digits.")
    speakers: dict[str, dict[str, list[Samples]]] = defaultdict(lambda: defaultdict(list))
    for file in sorted(folder.iterdir()):
        name = re.fullmatch(r"(\d)_([^_]+)_\d+\.(wav|flac|mp3|ogg)", file.name)
        if name is None:
            continue
        try:
            speakers[name[2]][name[1]].append(to_mono(decode(file.read_bytes())))
        except AudioError as error:
            raise UsageError(f"'{file}' cannot be used as a spoken digit: {error}.") from error
    whole = {speaker: recordings for speaker, recordings in speakers.items() if len(recordings) == 10}
    if not whole:
        raise UsageError(
            f"No speaker in '{folder}' says all ten digits; name the files DIGIT_SPEAKER_NUMBER.wav, "
            "for instance 7_theo_0.wav."
        )
    return SpokenDigits(whole)
