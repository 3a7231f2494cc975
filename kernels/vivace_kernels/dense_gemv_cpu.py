"""Dense matrix-vector products on a processor: several ways to the same numbers, the fastest of which is taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch

from vivace_kernels.probing import Probed, probe_ways
from vivace_kernels.sparsity.row_gemv_cpu import row_gemv_cpu
from vivace_kernels.sparsity.sparse_gemv_cpu import native_reason

DenseProduct = Literal["linear", "mm", "mv", "rows"]
"""`linear` is torch's `F.linear`; `mm` and `mv` are its products with the weights on the left, for which its
libraries have other kernels; `rows` is compiled C++."""

_chosen: dict[tuple[tuple[int, ...], torch.dtype, int], Probed] = {}


def dense_gemv_cpu(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, *, product: DenseProduct
) -> torch.Tensor:
    """A linear layer's output for one token, on a processor.

    All products add in the same precision or a higher one, in orders of their own: float32 outputs differ by some
    millionths of the largest, those of narrower types by one rounding.

    Args:
        x: shape (1, inputs), of the weights' type.
        weight: shape (outputs, inputs), contiguous.
        bias: shape (outputs,), or None.
        product: which of `dense_products`.

    Returns:
        Shape (1, outputs).
    """
    return _PRODUCTS[product](x, weight, bias)


def dense_products(dtype: torch.dtype) -> list[DenseProduct]:
    """Those that this machine has for a type of number, torch's usual one first."""
    compiled: list[DenseProduct] = ["rows"] if native_reason(dtype) is None else []
    return ["linear", "mm", "mv", *compiled]


def fastest_product(weights: Sequence[torch.Tensor]) -> Probed:
    """The fastest product on this machine, for one token and weights of this shape; found once, and remembered.

    None of them takes a second copy of the weights.

    Args:
        weights: one or more of one shape and type, each (outputs, inputs) and contiguous. Those of a whole model
            meet a product as decoding does: none of them lies in a cache any more.

    Returns:
        The name of the product among `dense_products`, and the time of each over that of `linear`.
    """
    one = weights[0]
    key = (tuple(one.shape), one.dtype, torch.get_num_threads())
    if key not in _chosen:
        x = torch.randn(1, one.shape[1], generator=torch.Generator().manual_seed(0)).to(one.dtype)
        with torch.inference_mode():
            _chosen[key] = probe_ways(
                {name: partial(_tried, _PRODUCTS[name], x, weights) for name in dense_products(one.dtype)}
            )
    return _chosen[key]


def _tried(product: _Product, x: torch.Tensor, weights: Sequence[torch.Tensor], turn: int) -> torch.Tensor:
    return product(x, weights[turn % len(weights)], None)


def _mm(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    product = torch.mm(weight, x.T).T
    return product if bias is None else product + bias


def _mv(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    product = torch.mv(weight, x[0]) if bias is None else torch.addmv(bias, weight, x[0])
    return product.unsqueeze(0)


def _rows(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return row_gemv_cpu(x, weight, None, bias)


_Product = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]
_PRODUCTS: dict[DenseProduct, _Product] = {
    "linear": torch.nn.functional.linear,
    "mm": _mm,
    "mv": _mv,
    "rows": _rows,
}
