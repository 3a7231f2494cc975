"""Products of a mixture's experts: all ways beside the float64 reference, and the GPU's compiled for one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from support.triton_processes import Call, assembled
from vivace_kernels.speculation.expert_gemm_cpu import ExpertWay, expert_gemm_cpu
from vivace_kernels.speculation.expert_product import expert_product
from vivace_kernels.speculation.experts import reference

CASES = [(8, 2, 8), (64, 4, 16), (128, 8, 32), (64, 8, 64), (128, 2, 5), (8, 8, 8), (64, 2, 2), (128, 4, 128)]
"""Experts, experts of each token, experts that are met at most."""
ERRORS = {torch.float32: 1e-5, torch.bfloat16: 2**-6, torch.float16: 2**-9}
"""Of the largest output: what the activation leaves is rounded to the type, and then the output."""


class Drawn:
    """Experts and tokens, of which some places weigh nothing."""

    def __init__(self, experts: int, chosen: int, met: int, tokens: int, dtype: torch.dtype, hidden: int, width: int):
        drawn = torch.Generator().manual_seed(experts + chosen + tokens)

        def normal(*shape: int, scale: float = 1.0) -> torch.Tensor:
            return (scale * torch.randn(shape, generator=drawn)).to(dtype)

        self.x = normal(tokens, hidden)
        self.gate_up = normal(experts, 2 * width, hidden, scale=hidden**-0.5)
        self.down = normal(experts, hidden, width, scale=width**-0.5)
        self.shortlist = torch.randperm(experts, generator=drawn)[:met]
        places = torch.stack([torch.randperm(met, generator=drawn)[:chosen] for _ in range(tokens)])
        self.index = self.shortlist[places]
        self.weights = torch.rand(tokens, chosen, generator=drawn) + 0.1
        dropped = torch.rand(tokens, chosen, generator=drawn) < 0.2
        self.weights[dropped], self.index[dropped] = 0, self.shortlist[0]

    @property
    def arguments(self) -> tuple[torch.Tensor, ...]:
        return self.x, self.gate_up, self.down, self.index, self.weights

    def assert_right(self, found: torch.Tensor) -> None:
        exact = reference(*self.arguments)
        assert found.dtype == self.x.dtype and found.shape == exact.shape
        assert (found.double() - exact).abs().max() <= ERRORS[found.dtype] * exact.abs().max()


@pytest.mark.parametrize("dtype", ERRORS, ids=str)
@pytest.mark.parametrize("way", ["grouped", "loop"])
def test_every_way_of_a_processor_is_right(way: ExpertWay, dtype: torch.dtype) -> None:
    for experts, chosen, met in CASES:
        for tokens in (1, 7, 33):
            drawn = Drawn(experts, chosen, met, tokens, dtype, hidden=32, width=24)
            drawn.assert_right(expert_gemm_cpu(*drawn.arguments, way=way))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_single_tokens_have_a_way_of_their_own(dtype: torch.dtype) -> None:
    drawn = Drawn(8, 4, 6, 1, dtype, hidden=32, width=24)
    drawn.assert_right(expert_gemm_cpu(*drawn.arguments, way="vectors"))
    drawn.assert_right(expert_product(*drawn.arguments))  # by whichever way was the fastest
    with pytest.raises(ValueError, match="one token"):
        expert_gemm_cpu(*Drawn(8, 4, 6, 2, dtype, hidden=32, width=24).arguments, way="vectors")


@pytest.mark.parametrize("way", ["grouped", "loop"])
def test_experts_that_are_not_met_are_not_read(way: ExpertWay) -> None:
    """Nor are those of weight zero: what lies in them may be no number."""
    drawn = Drawn(8, 2, 4, 6, torch.float32, hidden=32, width=16)
    met = drawn.index[drawn.weights != 0].unique()
    for weights in (drawn.gate_up, drawn.down):
        kept = weights[met].clone()
        weights.fill_(float("nan"))
        weights[met] = kept
    drawn.index[drawn.weights == 0] = next(each for each in range(8) if each not in met)
    drawn.assert_right(expert_gemm_cpu(*drawn.arguments, way=way))


def test_tokens_without_any_expert_and_no_tokens_at_all_get_zeros() -> None:
    drawn = Drawn(8, 2, 4, 3, torch.float32, hidden=32, width=16)
    drawn.weights[1] = 0
    assert not expert_product(*drawn.arguments)[1].any()
    none = drawn.x[:0], drawn.gate_up, drawn.down, drawn.index[:0], drawn.weights[:0]
    assert expert_product(*none).shape == (0, 32)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    ("tokens", "cases"),
    [
        (1, CASES[:2]),
        (17, CASES[1:2]),
        (64, CASES[5:7]),
        *(pytest.param(tokens, CASES, marks=pytest.mark.full) for tokens in (2, 16, 33, 64)),
    ],
    ids=str,
)
def test_the_kernel_agrees_with_the_reference(
    interpreted: Call, tokens: int, cases: Sequence[tuple[int, int, int]], dtype: torch.dtype
) -> None:
    """Odd shapes: blocks that are not full in every direction."""
    gpu = pytest.importorskip("vivace_kernels.speculation.expert_gemm")
    for experts, chosen, met in cases:
        drawn = Drawn(experts, chosen, met, tokens, dtype, hidden=72, width=40)
        shortlist = drawn.shortlist if experts > 8 else None
        drawn.assert_right(interpreted(gpu.expert_gemm, *drawn.arguments, shortlist=shortlist))


def test_the_kernel_reads_no_expert_that_is_not_met_and_gives_the_same_bits_twice(interpreted: Call) -> None:
    gpu = pytest.importorskip("vivace_kernels.speculation.expert_gemm")
    drawn = Drawn(8, 2, 3, 9, torch.bfloat16, hidden=64, width=32)
    met = drawn.index[drawn.weights != 0].unique()
    for weights in (drawn.gate_up, drawn.down):
        kept = weights[met].clone()
        weights.fill_(float("nan"))
        weights[met] = kept
    found = interpreted(gpu.expert_gemm, *drawn.arguments)
    drawn.assert_right(found)
    assert torch.equal(found, interpreted(gpu.expert_gemm, *drawn.arguments))


def test_more_tokens_of_an_expert_than_are_multiplied_together_are_all_found(interpreted: Call) -> None:
    gpu = pytest.importorskip("vivace_kernels.speculation.expert_gemm")
    drawn = Drawn(8, 2, 2, gpu.MOST_ROWS + 9, torch.bfloat16, hidden=16, width=16)
    drawn.assert_right(interpreted(gpu.expert_gemm, *drawn.arguments, shortlist=drawn.shortlist))


@pytest.mark.parametrize(
    ("tokens", "dtype"),
    [
        (1, torch.bfloat16),
        (64, torch.float16),
        *(
            pytest.param(tokens, dtype, marks=pytest.mark.full)
            for dtype, counts in ((torch.bfloat16, (32, 64, 128)), (torch.float16, (16, 32, 128)))
            for tokens in counts
        ),
    ],
)
def test_the_kernels_compile_without_spilling(compiling: Call, tokens: int, dtype: torch.dtype) -> None:
    """Products go through the matrix unit, and weights arrive 16 bytes at a time."""
    gpu = pytest.importorskip("vivace_kernels.speculation.expert_gemm")
    drawn = Drawn(16, 8, 8, tokens, dtype, hidden=256, width=128)
    kernels = compiling(assembled, 90, gpu.expert_gemm, *drawn.arguments, shortlist=drawn.shortlist)
    assert [each.name for each in kernels] == ["_gate_up", "_down", "_sum"]
    for each in kernels:
        assert each.spilled == 0, each.sentence
    for each in kernels[:2]:
        assert "mma" in each.instructions and "cp.async.cg.shared.global" in each.instructions


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"x": torch.ones(3, 5)}, "shapes do not fit"),
        ({"index": torch.zeros(3, 3, dtype=torch.int64)}, "shapes do not fit"),
        ({"x": torch.ones(3, 8, dtype=torch.float16)}, "one type on one device"),
        ({"down": torch.ones(4, 6, 8).transpose(1, 2)}, "contiguous"),
    ],
)
def test_what_does_not_fit_is_one_sentence(changed: dict[str, torch.Tensor], said: str) -> None:
    given = {
        "x": torch.ones(3, 8),
        "gate_up": torch.ones(4, 12, 8),
        "down": torch.ones(4, 8, 6),
        "index": torch.zeros(3, 2, dtype=torch.int64),
        "weights": torch.ones(3, 2),
    }
    with pytest.raises(ValueError, match=said):
        expert_product(**{**given, **changed})


def test_the_kernel_runs_on_a_gpu_and_in_half_precision_alone() -> None:
    gpu = pytest.importorskip("vivace_kernels.speculation.expert_gemm")
    refused = ((torch.bfloat16, 3, "CUDA device"), (torch.float32, 3, "knows bfloat16"), (torch.float16, 129, "128"))
    for dtype, tokens, said in refused:
        with pytest.raises(ValueError, match=said):
            gpu.expert_gemm(*Drawn(8, 2, 4, tokens, dtype, hidden=16, width=16).arguments)
