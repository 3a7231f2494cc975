"""Functions into which `torch.compile` does not look: what they change besides is changed each time."""

from __future__ import annotations

import torch

from vivace_methods.models.opaque import Opaque


def test_what_it_counts_is_counted_though_nobody_reads_its_result() -> None:
    """The operator declares no change of its arguments, and a compiler drops what looks as if it did nothing."""
    counts = torch.zeros(1, dtype=torch.int32)

    def count(x: torch.Tensor) -> torch.Tensor:
        counts.add_(1)
        return x.clone()

    counted = Opaque(count, torch.empty_like)

    def step(x: torch.Tensor) -> torch.Tensor:
        counted(x)
        return x + 1

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(torch.ones(2)), torch.full((2,), 2.0)) and counts.item() == 1
    compiled(torch.ones(2))
    assert counts.item() == 2
