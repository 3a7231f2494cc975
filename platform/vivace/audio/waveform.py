"""The shape of a recording, as people know it from players: how loud it is from beginning to end."""

from __future__ import annotations

import numpy as np

from vivace.audio.convert import decode


def waveform(content: bytes, parts: int) -> tuple[list[float], float]:
    """The loudest sample of each of so many equally long parts, from 0 to 1, and the recording's seconds.

    Args:
        content: a recording, as `decode` takes it.
        parts: how many; of a recording with fewer samples there are as many as it has samples.

    Raises:
        AudioError: it cannot be decoded.
    """
    recording = decode(content)
    loudness = np.abs(recording.samples).max(axis=1)
    edges = np.linspace(0, len(loudness), min(parts, len(loudness)), endpoint=False).astype(int)
    peaks = np.minimum(np.maximum.reduceat(loudness, edges), 1.0)
    return [float(peak) for peak in peaks], len(loudness) / recording.rate
