"""The families of inference methods, which are the efficiency tracks, and all that differs between them.

Tracks, boards, pages and the choice of a baseline read these records; nothing here needs torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class PlotAxis:
    """A figure that arms are held against each other by: its name, its words, and whether more of it is better."""

    metric: str
    title: str
    more_is_better: bool = False


@dataclass(frozen=True)
class Candidate:
    """A baseline that may be the fastest one.

    Attributes:
        method: as a person writes it.
        device: where alone it is tried; None is everywhere.
        needs_experts: whether it is tried on mixtures of experts alone.
    """

    method: str
    device: Literal["cuda", "cpu"] | None = None
    needs_experts: bool = False


@dataclass(frozen=True)
class Family:
    """Methods that are measured against each other, and how.

    Attributes:
        name: of the track; methods name it as their `family`.
        title: as people read it.
        baseline: the method that does nothing but what has to be done, which is taken where nothing is faster.
        candidates: others that do just that, and may be faster on some model or machine.
        measured_cost: what quality is held against, for models whose times mean something.
        counted_cost: the same for small models, whose times mean nothing.
        quality: which quality counts.
        in_any_pass: whether its methods act in every pass of a model, whoever asks for it, so that log-likelihoods
            of other programs are theirs.
        ranked_by: the method, with a setting `keep`, that holds the rankings of all its methods against its own;
            empty where they rank nothing.
        ranked_by_draft: the method, with a setting `keep`, that ranks by what a model of its own looks at; empty
            where there is none.
    """

    name: str
    title: str
    baseline: str
    candidates: tuple[Candidate, ...]
    measured_cost: PlotAxis
    counted_cost: PlotAxis
    quality: PlotAxis = PlotAxis("quality", "quality", more_is_better=True)
    in_any_pass: bool = False
    ranked_by: str = ""
    ranked_by_draft: str = ""


_SPEED = PlotAxis("speed_ratio", "tokens per second, relative to the baseline", more_is_better=True)
_BYTES = PlotAxis("bytes_ratio", "bytes moved per token, relative to the baseline")

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family(
            "speculation",
            "Speculative decoding",
            baseline="autoregressive",
            candidates=(
                Candidate("autoregressive(cache=static,compile=reduce-overhead)", "cuda"),
                Candidate("autoregressive(cache=static)"),
                Candidate("autoregressive(experts_implementation=batched_mm)", "cpu", needs_experts=True),
                Candidate("autoregressive(experts_implementation=vivace)", needs_experts=True),
            ),
            measured_cost=_SPEED,
            counted_cost=_BYTES,
        ),
        Family(
            "prefill",
            "Long-prompt prefill",
            baseline="full",
            candidates=(
                Candidate("full(attention=flash_attention_2)", "cuda"),
                Candidate("full(attention=eager)", "cpu"),
            ),
            measured_cost=PlotAxis("ttft_ratio", "time to first token, relative to the baseline"),
            counted_cost=PlotAxis("flops_ratio", "FLOPs per token, relative to the baseline"),
            ranked_by="oracle",
            ranked_by_draft="spec-prefill",
        ),
        Family(
            "sparsity",
            "Activation sparsity",
            baseline="dense",
            candidates=(
                Candidate("dense(cache=static,compile=reduce-overhead)", "cuda"),
                Candidate("dense(cache=static)"),
            ),
            measured_cost=_SPEED,
            counted_cost=_BYTES,
            in_any_pass=True,
        ),
    )
}
"""Families by name, in the order in which they are listed."""
