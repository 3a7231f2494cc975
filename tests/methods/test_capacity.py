"""What cannot fit into memory is refused in one sentence, before the system ends the process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from vivace_methods.arms import Arm
from vivace_methods.models import free_memory
from vivace_methods.models.free_memory import free_bytes, require_free, stored_bytes
from vivace_methods.models.loading import load_model
from vivace_methods.models.random import random_model, real_configuration, tiny_configuration
from vivace_methods.prefill.full import FullPrefill
from vivace_methods.protocol import MethodError, Request
from vivace_methods.registry import parse_arms
from vivace_methods.timing.baseline_choice import fastest_baseline
from vivace_methods.timing.capacity import memory_needed
from vivace_methods.timing.measurement import measure_arms
from vivace_methods.timing.trials import Recording, TimedPrompt

CPU = torch.device("cpu")
LONG = TimedPrompt("long", Request(torch.arange(400)[None] % 199, 4))
SHORT = TimedPrompt("short", Request(torch.arange(10)[None], 4))


@pytest.fixture
def model() -> Any:
    return random_model(tiny_configuration("olmoe"))


def test_what_an_arm_keeps_is_counted(model: Any) -> None:
    """Beside plain decoding: 4 heads of 400 by 400 scores, or for each token 2 experts of 3 · 32 · 48 weights."""
    names = ["full", "full(attention=eager)", "autoregressive(experts_implementation=batched_mm)"]
    needed = memory_needed(model, parse_arms(names), [SHORT, LONG])
    cache = 2 * 32 * 404 * 4  # 2 layers, 2 · 2 heads of 8, in 32 bits
    assert needed["full"] == pytest.approx(cache + 400 * (2 * 32 + 2 * (144 + 64)) * 4, rel=0.05)
    assert needed[names[1]] - needed["full"] == 4 * 400**2 * 12
    assert needed[names[2]] - needed["full"] == 400 * 2 * 3 * 32 * 48 * 4


def test_an_arm_that_cannot_fit_is_refused_before_anything_is_timed(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    arms, told = parse_arms(["full", "full(attention=eager)"]), []

    def measured(prompt: TimedPrompt) -> Recording:
        return measure_arms(model, arms, [prompt], baseline="full", repetitions=1, audited=0, on_trial=told.append)

    monkeypatch.setattr(free_memory, "free_bytes", lambda: 2_000_000)
    with pytest.raises(MethodError, match=r"^The arm full\(attention=eager\) needs about 0\.0 GB of memory"):
        measured(LONG)
    assert not told
    assert len(measured(SHORT).trials) == 2


def test_a_baseline_that_cannot_fit_is_not_even_tried(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    applied = FullPrefill.attach
    monkeypatch.setattr(FullPrefill, "attach", lambda self, *given: tried.append(self.label) or applied(self, *given))
    monkeypatch.setattr(free_memory, "free_bytes", lambda: 2_000_000)
    assert fastest_baseline("prefill", model, LONG.request).method == FullPrefill()
    assert tried == ["full"]


def test_a_model_that_cannot_fit_is_refused(tmp_path: Path, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model.save_pretrained(tmp_path)
    numbers = sum(weights.numel() for weights in model.parameters())
    assert stored_bytes(tmp_path, torch.float32) == 4 * numbers
    assert stored_bytes(tmp_path, torch.bfloat16) == 2 * numbers
    monkeypatch.setattr(free_memory, "free_bytes", lambda: 3 * numbers)
    assert load_model(tmp_path, dtype=torch.bfloat16).dtype == torch.bfloat16
    with pytest.raises(MethodError, match="numbers of fewer bits"):
        load_model(tmp_path)
    monkeypatch.setattr(free_memory, "free_bytes", lambda: 16 * 10**9)
    with pytest.raises(
        MethodError, match=r"needs about 61\.1 GB of memory, and 16\.0 GB are free: take fewer layers"
    ):
        random_model(real_configuration("Qwen/Qwen3-30B-A3B"), dtype=torch.bfloat16)


def test_a_folder_without_readable_weights_needs_nothing(tmp_path: Path) -> None:
    """Whoever loads it says what is wrong with it."""
    for content in (b"", b"x" * 40, b"\x02\0\0\0\0\0\0\0[]", b'\x0f\0\0\0\0\0\0\0{"a":{"shape":3}'):
        (tmp_path / "model.safetensors").write_bytes(content)
        assert stored_bytes(tmp_path, torch.float32) == 0


def test_a_container_has_less_than_its_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it holds of files is free; where it has no limit, the machine's memory counts."""
    monkeypatch.setattr(free_memory, "_CONTAINERS", ((tmp_path, "memory.max", "memory.current"),))
    machine = free_bytes()
    if machine is None:
        pytest.skip("this system does not tell")
    (tmp_path / "memory.current").write_text("5000\n")
    (tmp_path / "memory.stat").write_text("anon 1000\nactive_file 1500\ninactive_file 2500\n")
    (tmp_path / "memory.max").write_text("9000\n")
    assert free_bytes() == 8000
    (tmp_path / "memory.max").write_text("max\n")
    unlimited = free_bytes()
    assert unlimited is not None and unlimited > 1_000_000


def test_a_gpu_says_so_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(free_memory, "free_bytes", lambda: 1)
    require_free(2, torch.device("cuda"), "It", "do without")
    with pytest.raises(MethodError, match="do without"):
        require_free(2, CPU, "It", "do without")


def test_an_architecture_whose_shapes_are_not_known_is_not_refused(model: Any) -> None:
    model.config.model_type = "another"
    assert memory_needed(model, {"full": Arm.of(FullPrefill())}, [LONG]) == {}
