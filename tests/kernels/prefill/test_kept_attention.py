"""Attention of kept queries over all keys: torch's and the GPU's beside float64, and beside attention of all."""

from __future__ import annotations

import pytest
import torch

from support.triton_processes import Call
from vivace_kernels.prefill.kept_attention import kept_attention
from vivace_kernels.prefill.kept_attention_cpu import kept_attention_reference

DTYPES = [(torch.float32, 2e-5), (torch.bfloat16, 2**-6), (torch.float16, 2**-9)]


def drawn(
    heads: int, key_heads: int, kept: int, positions: int, size: int, dtype: torch.dtype
) -> tuple[torch.Tensor, ...]:
    """Queries, keys, values and places."""
    chance = torch.Generator().manual_seed(heads + kept)
    places = torch.randperm(positions, generator=chance)[:kept].sort().values
    shapes = ((heads, kept, size), (key_heads, positions, size), (key_heads, positions, size))
    return *(torch.randn(shape, generator=chance).to(dtype) for shape in shapes), places


@pytest.mark.parametrize("heads", [2, 8, 16])
@pytest.mark.parametrize(("dtype", "error"), DTYPES, ids=str)
def test_queries_see_what_lies_before_them(heads: int, dtype: torch.dtype, error: float) -> None:
    """Fewer than are taken at a time, one more, all tokens, and one alone."""
    for kept, positions in ((10, 50), (65, 300), (200, 200), (1, 4)):
        inputs = drawn(heads, 2, kept, positions, 16, dtype)
        found = kept_attention(*inputs)
        assert found.dtype == dtype and found.shape == inputs[0].shape
        torch.testing.assert_close(found.double(), kept_attention_reference(*inputs), rtol=error, atol=error)


def test_the_reference_is_causal_attention_of_all_tokens_at_the_kept_ones() -> None:
    queries, keys, values, _ = drawn(6, 2, 40, 40, 16, torch.float64)
    places = torch.tensor([0, 3, 4, 17, 39])
    every = torch.nn.functional.scaled_dot_product_attention(
        queries[None], keys[None], values[None], is_causal=True, scale=0.3, enable_gqa=True
    )[0]
    kept = kept_attention_reference(queries[:, places], keys, values, places, scale=0.3)
    torch.testing.assert_close(kept, every[:, places])


@pytest.mark.parametrize("group", [1, 4, 8])
@pytest.mark.parametrize(("dtype", "error"), DTYPES[:2], ids=str)
def test_the_gpus_kernel_sees_the_same(interpreted: Call, group: int, dtype: torch.dtype, error: float) -> None:
    """Numbers of queries and of keys that are no multiples of a block; inputs that are slices of others."""
    pytest.importorskip("triton")
    from vivace_kernels.prefill.kept_attention_gpu import kept_attention_gpu

    kept, positions = (45, 100) if dtype == torch.float32 else (140, 200)
    queries, keys, values, places = drawn(group, 1, kept, positions, 24, dtype)
    apart = queries.transpose(0, 1).contiguous().transpose(0, 1)
    inputs = (apart, keys[:, 1:], values[:, 1:], places.clamp(max=positions - 2))
    found = interpreted(kept_attention_gpu, *inputs, scale=0.2)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), kept_attention_reference(*inputs, scale=0.2), rtol=error, atol=error)


@pytest.mark.parametrize(
    ("shapes", "places", "said"),
    [
        (((4, 2, 8), (3, 9, 8), (3, 9, 8)), torch.arange(2), "a multiple of key heads"),
        (((4, 2, 8), (2, 9, 8), (2, 8, 8)), torch.arange(2), "do not fit keys"),
        (((4, 2, 8), (2, 9, 8), (2, 9, 8)), torch.arange(3), "2 queries need"),
        (((4, 2, 8), (2, 9, 8), (2, 9, 8)), torch.zeros(2), r"torch\.float32"),
    ],
)
def test_what_does_not_fit_is_one_sentence(
    shapes: tuple[tuple[int, int, int], ...], places: torch.Tensor, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        kept_attention(*(torch.ones(shape) for shape in shapes), places)
