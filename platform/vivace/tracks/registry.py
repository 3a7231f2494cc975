"""From a track's name to the track: the one place where tracks are registered."""

from __future__ import annotations

from collections.abc import Callable

from vivace.machine.optional_packages import require_torch
from vivace.spec import check_track_name
from vivace.tracks.base import Track
from vivace_methods.families import FAMILIES


def _audio_multichallenge() -> Track:
    from vivace.tracks.dialogue.track import DialogueTrack

    return DialogueTrack()


def _efficiency(name: str) -> Callable[[], Track]:
    def make() -> Track:
        require_torch()
        from vivace.tracks.efficiency.track import EfficiencyTrack

        return EfficiencyTrack(name)

    return make


TRACKS: dict[str, Callable[[], Track]] = {
    "audio-multichallenge": _audio_multichallenge,
    **{name: _efficiency(name) for name in FAMILIES},
}
"""Track name → what makes it. A new track is one package and one line here."""


def find_track(name: str) -> Track:
    """The track of that name.

    Raises:
        UsageError: there is none.
    """
    check_track_name(name)
    return TRACKS[name]()
