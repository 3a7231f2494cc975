"""The GPU kernels, compiled for two generations of GPUs without one: what they need, and that nothing spills."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from support.packs import random_pack
from support.triton_processes import Assembled, Call, assembled, assert_fed

pytest.importorskip("triton")
from vivace_kernels.sparsity.sparse_gemv import sparse_gemv
from vivace_kernels.sparsity.teal_gemv import teal_gemv, teal_pack

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
DEFAULT = ((torch.float32, 1), (torch.bfloat16, 1), (torch.bfloat16, 2), (torch.float16, 1))
"""Types and tokens that the default suite compiles: of two tokens one type, for they differ in a conversion."""
CASES = [
    pytest.param(dtype, tokens, id=f"{dtype}-{tokens}", marks=[] if (dtype, tokens) in DEFAULT else pytest.mark.full)
    for dtype in DTYPES
    for tokens in (1, 2)
]
CAPABILITIES = (pytest.param(80, marks=pytest.mark.full), 90)


def assert_sound(each: Assembled, record_property: Callable[[str, object], None], built_for: str) -> None:
    """Nothing spills, and products are of the numbers as they are: no matrix unit, which would round float32."""
    record_property("measured", f"{built_for}: {each.sentence}")
    assert each.spilled == 0
    assert not any(word in each.instructions for word in ("tf32", "mma.sync", "wgmma"))


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize(("dtype", "tokens"), CASES)
def test_the_sparse_product_compiles_without_spilling(
    compiling: Call,
    dtype: torch.dtype,
    tokens: int,
    capability: int,
    record_property: Callable[[str, object], None],
) -> None:
    packed = random_pack(64, (256, 48), (16, 0), dtype, biased=(True, True))
    counts = torch.zeros(2, dtype=torch.int32)
    (multiply,) = compiling(
        assembled, capability, sparse_gemv, torch.ones(tokens, 64, dtype=dtype), packed, counts=counts
    )
    assert_sound(multiply, record_property, f"sparse product, {dtype}, {tokens} token(s), sm_{capability}")
    assert_fed(multiply)


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_rival_compiles_without_spilling(
    compiling: Call, dtype: torch.dtype, capability: int, record_property: Callable[[str, object], None]
) -> None:
    linears = teal_pack([torch.ones(256, 64, dtype=dtype), torch.ones(48, 64, dtype=dtype)], [0.1, 0.2])
    (kernel,) = compiling(assembled, capability, teal_gemv, torch.ones(1, 64, dtype=dtype), linears)
    assert_sound(kernel, record_property, f"TEAL's, {dtype}, sm_{capability}")
