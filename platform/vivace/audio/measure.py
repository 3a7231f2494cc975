"""What can be told of a recording without hearing it, so that a set's audio can be described and its faults found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vivace.audio.containers import container
from vivace.audio.convert import decode

SILENT_PEAK = 0.001
"""A recording whose highest sample lies below this (−60 dBFS) holds no speech."""
CLIPPED_LEVEL = 0.999
"""Full scale, less what rounding takes."""


@dataclass(frozen=True)
class Measurement:
    """One recording's numbers."""

    seconds: float
    rate: int
    channels: int
    container: str
    """`wav`, `flac`, `ogg`, `opus`, `mp3`, `aiff`, `m4a`, `webm`, …"""
    peak: float
    """The highest absolute sample; full scale is 1."""
    clipped_stretches: int
    """How often three or more samples in a row stand at full scale."""

    @property
    def is_silent(self) -> bool:
        """Whether nothing can be heard."""
        return self.peak < SILENT_PEAK


def measure(content: bytes) -> Measurement:
    """Decode a recording and measure it.

    Raises:
        AudioError: it cannot be decoded.
    """
    recording = decode(content)
    loudness = np.abs(recording.samples)
    full = loudness >= CLIPPED_LEVEL
    flat = full[2:] & full[1:-1] & full[:-2]
    begins = flat.copy()
    begins[1:] &= ~flat[:-1]
    return Measurement(
        seconds=recording.seconds,
        rate=recording.rate,
        channels=recording.samples.shape[1],
        container=container(content),
        peak=float(loudness.max()),
        clipped_stretches=int(np.count_nonzero(begins)),
    )
