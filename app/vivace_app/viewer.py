"""Who looks at the pages: nobody in particular, and then what is private is not there."""

from __future__ import annotations

from vivace.settings import load_settings
from vivace.store.visibility import NOBODY, OPERATOR, Viewer


def viewer() -> Viewer:
    """Who looks; whoever reaches the page is the operator where the operator has said so."""
    return OPERATOR if load_settings().show_private else NOBODY
