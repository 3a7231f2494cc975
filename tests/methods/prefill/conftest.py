"""A tiny model of several layers, on which pruned prefills are tried, and prompts for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from vivace_methods.models.random import random_model, tiny_configuration

LAYERS = 5


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def made(architecture: str = "llama", layers: int = LAYERS, **changed: Any) -> Any:
    configuration = tiny_configuration(architecture)
    configuration.num_hidden_layers = layers
    configuration.sliding_window = None
    if getattr(configuration, "layer_types", None) is not None:
        configuration.layer_types = ["full_attention"] * layers
    for name, value in changed.items():
        setattr(configuration, name, value)
    return random_model(configuration, seed=3)


@pytest.fixture(scope="session")
def build() -> Callable[..., Any]:
    return made


@pytest.fixture(scope="session")
def model() -> Any:
    return made()


@pytest.fixture(scope="session")
def prompt_of() -> Callable[..., torch.Tensor]:
    def prompt(tokens: int, seed: int = 0) -> torch.Tensor:
        return torch.randint(199, (1, tokens), generator=torch.Generator().manual_seed(seed))

    return prompt
