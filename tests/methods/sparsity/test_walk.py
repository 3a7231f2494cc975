"""Calibration texts are carried through a model block by block, and its layers meet what they would meet in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch

from vivace_methods.models import free_memory
from vivace_methods.models.random import random_model, tiny_configuration
from vivace_methods.protocol import MethodError
from vivace_methods.registry import parse_method
from vivace_methods.sparsity.activation import ActivationSparsity
from vivace_methods.sparsity.applying.groups import uncounted_group
from vivace_methods.sparsity.applying.linears import Group, block_of, by_block, find_groups
from vivace_methods.sparsity.fitting import walk
from vivace_methods.sparsity.fitting.layers import Fitted
from vivace_methods.sparsity.fitting.walk import Walk


@pytest.fixture(scope="module")
def texts() -> list[torch.Tensor]:
    drawn = torch.Generator().manual_seed(4)
    return [torch.randint(199, (1, length), generator=drawn) for length in (9, 24, 24, 60)]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def method(text: str) -> ActivationSparsity:
    made = parse_method(text)
    assert isinstance(made, ActivationSparsity)
    return made


def of_layers(architecture: str, layers: int) -> Any:
    configuration = tiny_configuration(architecture)
    kinds = getattr(configuration, "layer_types", None)
    configuration.num_hidden_layers = layers
    if kinds:
        configuration.layer_types = (list(kinds) * layers)[:layers]
    return random_model(configuration, seed=3)


def met_in(model: Any, group: Group, texts: list[torch.Tensor]) -> list[torch.Tensor]:
    """What a group reads of the second part of each text in a pass of the whole model, one text at a time."""
    met: list[torch.Tensor] = []
    hook = group.modules[0].register_forward_pre_hook(lambda module, inputs: met.append(inputs[0][0]))
    with torch.inference_mode():
        for text in texts:
            model(text, use_cache=False)
    hook.remove()
    return [each[len(each) // 2 :] for each in met]


@contextmanager
def counted_blocks(model: Any) -> Iterator[dict[str, int]]:
    """How often each block is called, at least in part."""
    counts = {block_of(group.names[0]): 0 for group in find_groups(model)}

    def count(path: str) -> Any:
        def hook(*_: Any) -> None:
            counts[path] += 1

        return hook

    with ExitStack() as removed:
        for path in counts:
            hook = model.get_submodule(path).register_forward_pre_hook(count(path))
            removed.callback(hook.remove)
        yield counts


# The windows of Gemma's layers differ, and are shorter than the longest text.
@pytest.mark.parametrize("architecture", ["llama", "gemma3_text"])
def test_layers_meet_what_they_would_in_the_whole_model(architecture: str, texts: list[torch.Tensor]) -> None:
    model = of_layers(architecture, 2)
    groups = find_groups(model)
    thresholds = method("teal(sparsity=0.6)").fit(model, texts).modules
    fitted = {name: Fitted(each, None) for name, each in thresholds.items()}
    dense, sparse = Walk(model, groups, texts), Walk(model, groups, texts)
    for block in by_block(groups):
        for group, found in zip(block, dense.inputs(block), strict=True):
            for one, other in zip(found, met_in(model, group, texts), strict=True):
                assert torch.allclose(one, other, atol=1e-5)
    with ExitStack() as applied:
        for group in groups:
            (found,) = sparse.inputs([group])
            for one, other in zip(found, met_in(model, group, texts), strict=True):
                assert torch.allclose(one, other, atol=1e-5), "behind the layers that are sparse by now"
            applied.enter_context(uncounted_group(group, fitted).applied())


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("teal", 5),
        ("teal(sequential=false)", 2),
        ("cats(sparsity=0.2)", 2),
        ("r-sparse(ratio=0.9)", 5),
        ("r-sparse(search=output-error)", 5),
    ],
)
def test_a_fit_passes_each_block_a_few_times_however_many_there_are(
    texts: list[torch.Tensor], name: str, most: int
) -> None:
    alike = [text for text in texts if text.shape[1] == 24]  # one batch
    for layers in (2, 4) if name == "teal" else (3,):
        model = of_layers("llama", layers)
        with counted_blocks(model) as counts:
            method(name).fit(model, alike)
        # The first call is that in which blocks do nothing but say what they are called with.
        assert len(counts) == layers and max(counts.values()) <= 1 + most


@pytest.mark.parametrize("name", ["teal(sequential=false)", "teal(sparsity=0.1,levels=greedy)", "cats(sparsity=0.2)"])
def test_a_model_of_unknown_anatomy_is_fitted_alike(
    texts: list[torch.Tensor], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = of_layers("llama", 2)
    known = method(name).fit(model, texts)

    def unknown(model: Any) -> Any:
        raise MethodError("It is not known.")

    monkeypatch.setattr(walk, "anatomy", unknown)
    found = method(name).fit(model, texts)
    assert {path: each.threshold for path, each in found.modules.items()} == pytest.approx(
        {path: each.threshold for path, each in known.modules.items()}, abs=1e-5
    )


def test_what_does_not_fit_into_memory_is_refused_before_anything_is_run(
    texts: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = of_layers("llama", 2)
    monkeypatch.setattr(free_memory, "free_bytes", lambda: 1000)
    said = "Keeping the hidden states of 117 calibration tokens needs about .* are free: calibrate on fewer tokens"
    with counted_blocks(model) as counts, pytest.raises(MethodError, match=said):
        method("teal").fit(model, texts)
    assert not any(counts.values())


def test_what_is_kept_grows_with_the_tokens_and_not_with_the_blocks(texts: list[torch.Tensor]) -> None:
    def kept(layers: int, tokens: int) -> int:
        model = of_layers("llama", layers)
        return walk.kept_bytes(walk.anatomy(model), find_groups(model), tokens)

    assert kept(2, 100) == kept(4, 100) and kept(2, 200) == 2 * kept(2, 100) > 0


def test_a_layer_that_is_never_run_is_named(texts: list[torch.Tensor]) -> None:
    model = of_layers("llama", 2)
    groups = find_groups(model)
    never = replace(groups[-1], names=(groups[-1].names[0],), modules=(torch.nn.Linear(4, 4),))
    with pytest.raises(MethodError, match="never runs"):
        Walk(model, groups, texts).inputs([groups[-2], never])
