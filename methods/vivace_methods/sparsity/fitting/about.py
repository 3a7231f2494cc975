"""What whoever fits a method says of the recipe that comes of it, and how the fitting is watched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class About:
    """What a recipe is to say of its origin, and how fitting is watched.

    Attributes:
        model: its name; the configuration's if None.
        revision: of the model, where it is known.
        calibration: what the calibration text is.
        on_step: told of the steps that are done and of all steps.
        journal: a file in which a search keeps what it measured, so that it goes on after an interruption; or None.
    """

    model: str | None = None
    revision: str | None = None
    calibration: str = "text of no name"
    on_step: Callable[[int, int], None] = field(default=lambda done, steps: None)
    journal: Path | None = None


NOBODY = About()
"""Nothing is said of it, and nobody watches."""
