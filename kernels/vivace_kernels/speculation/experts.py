"""What the experts of a mixture add to a draft's tokens: the reference of all kernels, and what they can multiply."""

from __future__ import annotations

import torch

HALVES = (torch.bfloat16, torch.float16)
MOST_TOKENS = 128
"""That the kernel takes at once: with more of them, weights are what costs least."""


def check(
    x: torch.Tensor, gate_up: torch.Tensor, down: torch.Tensor, index: torch.Tensor, weights: torch.Tensor
) -> None:
    """Refuse what no way can multiply.

    Raises:
        ValueError: shapes, types or devices that do not fit.
    """
    experts, hidden, width = down.shape if down.ndim == 3 else (0, 0, 0)
    fits = gate_up.shape == (experts, 2 * width, hidden) and x.ndim == 2 and x.shape[1] == hidden and experts > 0
    if not (fits and index.ndim == 2 and index.shape == weights.shape and len(index) == len(x)):
        raise ValueError(
            f"The shapes do not fit: x {tuple(x.shape)}, gate_up {tuple(gate_up.shape)}, down {tuple(down.shape)}, "
            f"index {tuple(index.shape)}, weights {tuple(weights.shape)}; they must be (tokens, hidden), (experts, "
            "2 * width, hidden), (experts, hidden, width), and twice (tokens, experts of each)."
        )
    if not x.dtype == gate_up.dtype == down.dtype or not x.device == gate_up.device == down.device == index.device:
        raise ValueError(
            f"Tokens and experts must be of one type on one device: x is {x.dtype} on {x.device}, gate_up "
            f"{gate_up.dtype} on {gate_up.device}, down {down.dtype} on {down.device}, the index on {index.device}."
        )
    if not (gate_up.is_contiguous() and down.is_contiguous()):
        raise ValueError("The experts' weights must be contiguous.")


def fits_kernel(x: torch.Tensor) -> bool:
    """Whether the kernel takes such tokens."""
    return x.dtype in HALVES and len(x) <= MOST_TOKENS


def reference(
    x: torch.Tensor, gate_up: torch.Tensor, down: torch.Tensor, index: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """What all ways must come to, in float64: one token and one of its experts after the other."""
    output = torch.zeros(x.shape, dtype=torch.float64)
    for token, (one, its_index, its_weights) in enumerate(
        zip(x.double(), index.tolist(), weights.tolist(), strict=True)
    ):
        for expert, weight in zip(its_index, its_weights, strict=True):
            if weight != 0:
                gate, up = (gate_up[expert].double() @ one).chunk(2)
                output[token] += weight * (down[expert].double() @ (torch.nn.functional.silu(gate) * up))
    return output
