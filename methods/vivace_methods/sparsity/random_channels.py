"""Channels left out at random: what every rule of activation sparsity has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vivace_methods.sparsity.fitting.criteria import Criterion
from vivace_methods.sparsity.teal import Teal


@dataclass(frozen=True)
class RandomChannels(Teal):
    """As TEAL, but channels are drawn once, by the layer's name, and left out for every token."""

    name: ClassVar[str] = "random-channels"
    paper: ClassVar[str] = "None: the control"
    criterion: ClassVar[Criterion] = "random"
