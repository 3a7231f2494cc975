"""What verifying passes read, for the leaderboard: different experts by layer, and bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any

from vivace_methods.diagnosis import Diagnosis, Evidence
from vivace_methods.errors import MethodError
from vivace_methods.models.anatomy import anatomy
from vivace_methods.models.cost import cost
from vivace_methods.models.ledger import Pass

BY_LAYER = ("unique_experts", "natural_experts", "natural_slots", "kept_mass", "uncovered")
"""Figures of verifying passes that are told by layer."""


def pass_figures(model: Any, passes: Sequence[Pass]) -> dict[str, Any]:
    """Figures of the passes that verified drafts.

    `unique_experts` are the different experts that a layer read in a pass, as they were counted where they are
    computed, by the layer's number and as a mean over passes; `mean_unique_experts` is their mean. `bytes_per_pass`
    are the least bytes that such a pass moves, `bytes_of_one_token` those of the pass of a single token at the same
    places: the ratio says how many accepted tokens a pass has to bring.

    Args:
        model: on which nothing is known of a cost: no figures.
        passes: of a generation.
    """
    verified = [one for one in passes if one.kind == "verify"]
    if not verified:
        return {}
    try:
        found = anatomy(model)
        whole = cost(found, verified, model.dtype).bytes
        single = cost(found, [Pass("decode", 1, one.context) for one in verified], model.dtype).bytes
    except MethodError:
        return {}
    figures: dict[str, Any] = {
        "bytes_per_pass": whole / len(verified),
        "bytes_of_one_token": single / len(verified),
    }
    counted = [one.experts for one in verified if one.experts]
    numbers = [str(number) for number, layer in enumerate(found.layers) if layer.experts is not None]
    if counted and numbers:
        by_layer = {number: fmean(each) for number, each in zip(numbers, zip(*counted, strict=True), strict=True)}
        figures |= {"unique_experts": by_layer, "mean_unique_experts": fmean(by_layer.values())}
    return figures


def by_layer(evidence: Evidence) -> Iterator[Diagnosis]:
    """The figures that are told by layer, as rows of one form."""
    passes = sum(one.kind == "verify" for one in evidence.passes)
    for kind in BY_LAYER:
        for layer, value in evidence.figures.get(kind, {}).items():
            yield Diagnosis(kind, layer, "", value, passes)
