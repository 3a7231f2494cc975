"""The GPU's sparse product beside its float64 reference, in Triton's interpreter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from unittest.mock import patch

import pytest
import torch

from support.packs import random_pack, unit_in_the_last_place
from support.triton_processes import Call, in_orders, launches
from vivace_kernels.sparsity.packed import Packed, reference

pytest.importorskip("triton")
from vivace_kernels.sparsity.sparse_gemv import SCAN, sparse_gemv

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def assert_right(found: torch.Tensor, x: torch.Tensor, packed: Packed) -> None:
    """One rounding away from the reference, and with what is not finite where it has that."""
    exact = reference(x, packed)
    assert found.dtype == x.dtype and found.shape == exact.shape
    torch.testing.assert_close(found.double(), exact, rtol=unit_in_the_last_place(x.dtype), atol=3e-6, equal_nan=True)


@pytest.mark.parametrize("tokens", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_several_layers_of_odd_shapes_are_right_and_counted(
    interpreted: Call, dtype: torch.dtype, tokens: int
) -> None:
    """More than a segment of channels, more than a tile of outputs, a rank, none, and a bias on some."""
    inputs = SCAN + 91
    packed = random_pack(inputs, (301, 33, 64), (5, 0, 19), dtype, biased=(True, False, True))
    x = torch.randn(tokens, inputs, generator=torch.Generator().manual_seed(1)).to(dtype)
    counts = torch.tensor([7, 0, 1], dtype=torch.int32)
    kept = packed.kept(x).sum((1, 2))
    assert ((kept > 0.2 * x.numel()) & (kept < 0.8 * x.numel())).all()
    found = interpreted(sparse_gemv, x, packed, counts=counts)
    assert_right(found, x, packed)
    assert counts.tolist() == (kept + torch.tensor([7, 0, 1])).tolist()


def of_many_programs(x: torch.Tensor, packed: Packed) -> tuple[torch.Tensor, list[int]]:
    """As on a GPU of five processors, so that lists are cut into several parts; and what was counted."""
    counts = torch.zeros(len(packed.linears), dtype=torch.int32)
    with patch("vivace_kernels.gpu.processors", return_value=5):
        return sparse_gemv(x, packed, counts=counts), counts.tolist()


@pytest.mark.parametrize(
    ("dtype", "levels", "tokens"),
    [
        pytest.param(torch.float32, False, 1, id="float32"),
        pytest.param(torch.bfloat16, False, 2, id="bfloat16, two tokens", marks=pytest.mark.full),
        pytest.param(torch.float16, False, 1, id="float16", marks=pytest.mark.full),
        pytest.param(torch.bfloat16, True, 2, id="eight bits, two tokens"),
    ],
)
def test_the_order_in_which_programs_run_changes_no_bit(
    interpreted: Call, dtype: torch.dtype, levels: bool, tokens: int
) -> None:
    """From the first to the last, back, and at random: whoever ends last joins, also what had to be left to it.

    Calls follow each other on one pack, which has to be found as it was at the beginning.
    """
    packed = random_pack(90, (140, 40), (7, 0), dtype, biased=(True, False), levels=levels)
    x = torch.randn(tokens, 90, generator=torch.Generator().manual_seed(1)).to(dtype)
    found = interpreted(in_orders, of_many_programs, x, packed, orders=(0, -1, 1))
    torch.testing.assert_close(
        found[0][0].double(), reference(x, packed), rtol=unit_in_the_last_place(dtype), atol=1e-5
    )
    for output, counts in found:
        assert torch.equal(output, found[0][0]) and counts == packed.kept(x).sum((1, 2)).tolist()


def test_limits_that_are_alike_are_read_once_each(interpreted: Call) -> None:
    packed = random_pack(50, (40, 24), (3, 0), torch.float32)
    packed.limits[0], packed.limits[1] = 0.4, 0.9
    x = torch.randn(2, 50, generator=torch.Generator().manual_seed(4))
    x[0, 3] = math.nan
    assert_right(interpreted(sparse_gemv, x, packed), x, packed)


def test_all_layers_of_one_input_take_one_launch(interpreted: Call) -> None:
    packed = random_pack(90, (301, 40, 64), (5, 0, 7), torch.float32)
    assert interpreted(launches, sparse_gemv, torch.ones(2, 90), packed) == 1


def test_whole_segments_are_right_and_give_the_same_bits_twice(interpreted: Call) -> None:
    packed = random_pack(2 * SCAN, (64,), (5,), torch.float32)
    x = torch.randn(2, 2 * SCAN, generator=torch.Generator().manual_seed(7))
    found = interpreted(sparse_gemv, x, packed)
    assert_right(found, x, packed)
    assert torch.equal(found, interpreted(sparse_gemv, x, packed))


def test_channels_of_many_segments_are_all_found(interpreted: Call) -> None:
    """So many that what earlier segments keep is counted in more than one round; some segments keep nothing."""
    inputs = 2 * SCAN + 1027
    packed = random_pack(inputs, (24,), (2,), torch.float32)
    packed.limits[0, SCAN // 2 : 2 * SCAN] = math.inf
    x = torch.randn(2, inputs, generator=torch.Generator().manual_seed(2))
    assert_right(interpreted(sparse_gemv, x, packed), x, packed)


def test_enough_outputs_to_cut_no_list(interpreted: Call) -> None:
    packed = random_pack(48, (1030, 20), (3, 4), torch.float32, biased=(True, True))
    x = torch.randn(2, 48, generator=torch.Generator().manual_seed(3))
    assert_right(interpreted(sparse_gemv, x, packed), x, packed)


@pytest.mark.parametrize("limit", [math.inf, -1.0], ids=["nothing is kept", "all is kept"])
@pytest.mark.parametrize("ranks", [(0, 0), (40, 24)], ids=["no rank", "full rank"])
def test_extremes_of_what_is_kept_and_of_rank(interpreted: Call, limit: float, ranks: Sequence[int]) -> None:
    packed = random_pack(40, (48, 24), ranks, torch.bfloat16, biased=(True, False))
    packed.limits.fill_(limit)
    x = torch.randn(2, 40, generator=torch.Generator().manual_seed(4)).bfloat16()
    counts = torch.zeros(2, dtype=torch.int32)
    assert_right(interpreted(sparse_gemv, x, packed, counts=counts), x, packed)
    assert counts.tolist() == [0 if limit > 0 else 80] * 2


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("ranks", [(0, 0), (3, 0)], ids=["no rank", "a rank"])
def test_what_is_not_finite_comes_out_of_its_token_and_of_no_other(
    interpreted: Call, value: float, ranks: Sequence[int]
) -> None:
    """Also through a weight of zero, and where the other token does not keep the channel."""
    packed = random_pack(70, (20, 17), ranks, torch.float32)
    packed.rows_of(packed.linears[1])[9, :5] = 0.0
    packed.limits[:, 9] = 0.5
    x = torch.randn(2, 70, generator=torch.Generator().manual_seed(5))
    x[0, 9], x[1, 9] = value, 0.25
    found = interpreted(sparse_gemv, x, packed)
    assert_right(found, x, packed)
    assert not found[0].isfinite().any() and found[1].isfinite().all()


def test_infinity_within_its_limit_is_left_out_beside_what_is_no_number(interpreted: Call) -> None:
    packed = random_pack(20, (8,), (0,), torch.float32)
    packed.limits[:, 3] = math.inf
    x = torch.randn(2, 20, generator=torch.Generator().manual_seed(8))
    x[0, 3], x[1, 3] = math.nan, math.inf
    found = interpreted(sparse_gemv, x, packed)
    assert_right(found, x, packed)
    assert found[0].isnan().all() and found[1].isfinite().all()


def test_a_value_on_its_limit_is_not_kept(interpreted: Call) -> None:
    packed = random_pack(16, (4,), (0,), torch.float32)
    limit = torch.tensor(0.7)
    packed.limits.fill_(limit)
    x = limit.repeat(1, 16)
    x[0, 3] *= -1
    counts = torch.zeros(1, dtype=torch.int32)
    assert not interpreted(sparse_gemv, x, packed, counts=counts).any() and counts.item() == 0
    x[0, 5] = torch.nextafter(limit, torch.tensor(1.0))
    found = interpreted(sparse_gemv, x, packed, counts=counts)
    assert found.all() and counts.item() == 1
    assert_right(found, x, packed)


def test_an_input_that_lies_apart_is_read_right(interpreted: Call) -> None:
    packed = random_pack(30, (16,), (2,), torch.float32)
    x = torch.randn(30, 2, generator=torch.Generator().manual_seed(6)).T
    assert not x.is_contiguous()
    assert_right(interpreted(sparse_gemv, x, packed), x, packed)


@pytest.mark.parametrize(
    ("x", "counts", "said"),
    [
        (torch.ones(2, 7), None, r"has shape \(2, 7\)"),
        (torch.ones(8), None, r"has shape \(8,\)"),
        (torch.ones(1, 8, dtype=torch.bfloat16), None, "type torch.bfloat16"),
        (torch.ones(1, 8, device="meta"), None, "device meta"),
        (torch.ones(3, 8), None, "3 were given"),
        (torch.ones(0, 8), None, "0 were given"),
        (torch.ones(1, 8), torch.zeros(2, dtype=torch.int32), r"must be contiguous, of shape \(1,\)"),
        (torch.ones(1, 8), torch.zeros(1, dtype=torch.int64), "type torch.int64"),
        (torch.ones(1, 8), None, "run on a CUDA device"),
    ],
)
def test_what_does_not_fit_is_one_sentence(x: torch.Tensor, counts: torch.Tensor | None, said: str) -> None:
    packed = random_pack(8, (4,), (0,), torch.float32)
    with pytest.raises(ValueError, match=said) as refused:
        sparse_gemv(x, packed, counts=counts)
    assert str(refused.value).endswith(".") and "\n" not in str(refused.value)


def test_a_type_that_the_kernel_does_not_know_is_refused() -> None:
    packed = random_pack(8, (4,), (0,), torch.float64)
    with pytest.raises(ValueError, match="knows bfloat16"):
        sparse_gemv(torch.ones(1, 8, dtype=torch.float64), packed)
