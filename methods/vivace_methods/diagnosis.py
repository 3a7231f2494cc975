"""What a method did in each layer of a model, as rows of one form for all methods, of which heat maps are drawn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from vivace_methods.models.ledger import Pass


@dataclass(frozen=True)
class Diagnosis:
    """One figure of one layer.

    Attributes:
        kind: what it is, for instance `kept_channels`, the share of a layer's channels that decoded tokens kept.
        layer: its name in the model, or its number where it is a whole block.
        setting: what else the figure depends on, for instance a threshold's criterion; empty where it is nothing.
        value: the figure; a mean where there are several observations.
        n: observations that it is the mean of, by which it is pooled with others; 0 of what was set and not seen.
    """

    kind: str
    layer: str
    setting: str
    value: float
    n: int


class Evidence(Protocol):
    """What was seen of a generation; a `Trace` is one, and so is a timed trial."""

    @property
    def figures(self) -> Mapping[str, Any]:
        """What the method shows of it."""
        ...

    @property
    def passes(self) -> tuple[Pass, ...]:
        """The forward passes, in order."""
        ...


def pooled(rows: Iterable[Diagnosis]) -> list[Diagnosis]:
    """Rows of several generations as rows of all of them: the mean over observations, in the order of the first."""
    sums: dict[tuple[str, str, str], tuple[float, int]] = {}
    for row in rows:
        key = row.kind, row.layer, row.setting
        total, n = sums.get(key, (0.0, 0))
        sums[key] = total + row.value * row.n, n + row.n
    return [Diagnosis(*key, total / n, n) for key, (total, n) in sums.items() if n]
