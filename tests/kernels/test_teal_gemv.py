"""The rival's kernel beside its float64 reference, in Triton's interpreter."""

from __future__ import annotations

import math

import pytest
import torch

from support.triton_processes import Call

pytest.importorskip("triton")
from vivace_kernels.sparsity.teal_gemv import TILES, Tile, teal_gemv, teal_pack, teal_reference

SMALL = Tile(rows=64, columns=64, warps=4)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("dtype", "error"), [(torch.float32, 1e-5), (torch.bfloat16, 2**-7), (torch.float16, 2**-8)], ids=str
)
def test_layers_with_thresholds_of_their_own_are_right(interpreted: Call, dtype: torch.dtype, error: float) -> None:
    """Half precision is summed in half precision, so that it may be off by more than one rounding."""
    weights = [normal(outputs, 150, seed=outputs).to(dtype) for outputs in (64, 128, 37)]
    linears = teal_pack(weights, [0.3, 0.9, 1.5])
    x = normal(1, 150, seed=3).to(dtype)
    found, exact = interpreted(teal_gemv, x, linears, tile=SMALL), teal_reference(x, linears)
    assert found.dtype == dtype
    assert (found.double() - exact).abs().max() <= error * exact.abs().max()
    kept = [(x.abs() > threshold).sum().item() for threshold in (0.3, 0.9, 1.5)]
    assert 150 > kept[0] > kept[1] > kept[2] > 0


def test_the_reference_is_dense_without_thresholds() -> None:
    weight, x = normal(5, 9), normal(1, 9, seed=1)
    torch.testing.assert_close(teal_reference(x, teal_pack([weight], [-1.0])), x.double() @ weight.double().T)


def test_infinity_comes_out_and_what_is_no_number_passes_no_threshold(interpreted: Call) -> None:
    linears = teal_pack([normal(20, 30)], [0.5])
    for value in (math.inf, math.nan):
        x = normal(1, 30, seed=1)
        x[0, 4] = value
        found = interpreted(teal_gemv, x, linears, tile=SMALL)
        torch.testing.assert_close(found.double(), teal_reference(x, linears), rtol=1e-5, atol=1e-5)
        assert found.isfinite().all() == math.isnan(value)


def test_all_tiles_fit_the_shapes_of_fused_projections() -> None:
    assert len(set(TILES)) == len(TILES) > 8
    assert all(4096 % tile.columns == 0 and 1024 % tile.columns == 0 for tile in TILES)


@pytest.mark.parametrize(
    ("x", "tile", "said"),
    [
        (torch.ones(2, 8), SMALL, "read one token"),
        (torch.ones(1, 8, dtype=torch.float16), SMALL, "type torch.float16"),
        (torch.ones(1, 8), Tile(16, 32, 4), "crosses from one layer"),
        (torch.ones(1, 8), SMALL, "run on a CUDA device"),
    ],
)
def test_what_does_not_fit_is_one_sentence(x: torch.Tensor, tile: Tile, said: str) -> None:
    linears = teal_pack([torch.ones(80 if tile.columns == 32 else 64, 8), torch.ones(5, 8)], [0.0, 0.0])
    with pytest.raises(ValueError, match=said):
        teal_gemv(x, linears, tile=tile)
