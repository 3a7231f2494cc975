"""Muon in float32, which processors without instructions for bfloat16 multiply fast, too."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic, as Keller Jordan chose them: steep at zero, and near one after some iterations."""
_ITERATIONS = 5
_MOMENTUM = 0.95


class Muon(torch.optim.Optimizer):  # type: ignore[misc]
    """Momentum whose updates are made orthogonal (Jordan 2024, "Muon: an optimizer for hidden layers").

    `torch.optim.Muon` makes them so in bfloat16. A processor without instructions for it multiplies that 50 times
    slower than float32 (measured on one with AVX2: 1.2 against 60 GFLOP/s): nine tenths of a step of `zoo:dense` went
    there, when all its matrices were Muon's. What is computed is the same otherwise, without weight decay.

    Args:
        matrices: parameters of two dimensions.
        lr: learning rate; a matrix with more rows than columns takes the root of their ratio of it.
    """

    def __init__(self, matrices: Sequence[torch.nn.Parameter], lr: float) -> None:
        super().__init__(matrices, {"lr": lr})

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def step(self) -> None:
        """Follow the gradients once; parameters without one stay as they are."""
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if not state:
                    state["momentum"] = torch.zeros_like(matrix.grad)
                averaged = state["momentum"]
                averaged.lerp_(matrix.grad, 1 - _MOMENTUM)
                rows, columns = matrix.shape
                rate = group["lr"] * math.sqrt(max(1.0, rows / columns))
                matrix.sub_(orthogonal(matrix.grad.lerp(averaged, _MOMENTUM)), alpha=rate)


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """A matrix of the same singular vectors, whose singular values are near one.

    They come to 0.68 to 1.20 where they were at least 0.003 of the matrix's norm, to less where they were smaller.

    Args:
        matrix: shape (rows, columns).
    """
    of_one, of_three, of_five = _COEFFICIENTS
    wide = matrix if len(matrix) <= matrix.shape[1] else matrix.T
    wide = wide / wide.norm().clamp(min=1e-7)
    # Each iteration multiplies by a polynomial of the rows' products, which are smaller than the matrix itself.
    products, whole = wide @ wide.T, None
    for _ in range(_ITERATIONS):
        factor = torch.addmm(products, products, products, beta=of_three, alpha=of_five)
        factor.diagonal().add_(of_one)
        whole = factor if whole is None else factor @ whole
        products = factor @ products @ factor
    turned = whole @ wide
    return turned if len(matrix) <= matrix.shape[1] else turned.T
