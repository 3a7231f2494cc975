"""From a track's name to the track: the one place where tracks are registered."""

from __future__ import annotations

from collections.abc import Callable

from vivace.errors import UsageError
from vivace.tracks.base import Track


def _audio_multichallenge() -> Track:
    from vivace.tracks.dialogue.track import DialogueTrack

    return DialogueTrack()


TRACKS: dict[str, Callable[[], Track]] = {"audio-multichallenge": _audio_multichallenge}
"""Track name → what makes it. A new track is one package and one line here."""


def find_track(name: str) -> Track:
    """The track of that name.

    Raises:
        UsageError: there is none.
    """
    check_track_name(name)
    return TRACKS[name]()


def check_track_name(name: str) -> None:
    """See that there is a track of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in TRACKS:
        raise UsageError(f"Unknown track '{name}'; the tracks are {', '.join(sorted(TRACKS))}.")
