"""Which model a run of an efficiency track measures: of the zoo, random of real shapes, packaged, or a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from vivace.errors import UsageError
from vivace.model_origins import ORIGINS, Origin
from vivace.models.base import ModelIdentity
from vivace.models.local.checkpoints import Checkpoint, checkpoint_sha256, find_checkpoint, packaged_checkpoint


@dataclass(frozen=True)
class MeasuredModel:
    """A model, named and found, not yet loaded.

    Attributes:
        adapter: the name of its origin.
        name: as the board shows it.
        checkpoint: where its weights lie; None for random ones.
        content: a hash of the weights, or of what they are made from.
        layers: of a random model; None for all.
    """

    adapter: str
    name: str
    checkpoint: Checkpoint | None
    content: str | None
    layers: int | None = None

    @property
    def origin(self) -> Origin:
        """Where it comes from, and what its times and answers are worth."""
        return ORIGINS[self.adapter]

    @property
    def architecture(self) -> str:
        """The `model_type`, read without the package that knows it; empty where it is not told."""
        return str(self._told.get("model_type", ""))

    def limits(self) -> tuple[int, int | None]:
        """Tokens that it knows, and positions that it holds; None for any number of these.

        Raises:
            UsageError: its configuration cannot be read.
        """
        named: list[Any] = [self._told.get(name) for name in ("vocab_size", "max_position_embeddings")]
        if not all(isinstance(number, int) for number in named):
            text = self.configuration().get_text_config(decoder=True)
            named = [text.vocab_size, getattr(text, "max_position_embeddings", None)]
        return named[0], named[1]

    @cached_property
    def _told(self) -> Mapping[str, Any]:
        """What its folder or its shape tells, read without the package that knows it; empty where neither does."""
        from vivace_methods.models.shapes import REAL_SHAPES, TINY_SHAPES

        if self.checkpoint is None:
            return {**REAL_SHAPES, **TINY_SHAPES}[self.name]
        try:
            told = json.loads((self.checkpoint.fetched() / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return told if isinstance(told, dict) else {}

    def configuration(self) -> Any:
        """Its configuration, of transformers.

        Raises:
            UsageError: it cannot be read.
            UnreachableError: it is on the hub, which does not answer.
        """
        from vivace.models.local.failures import RefusedError
        from vivace.models.local.loading import config_of
        from vivace_methods.models.random import random_configuration

        if self.checkpoint is None:
            return random_configuration(self.name, layers=self.layers)
        try:
            return config_of(self.checkpoint.fetched())
        except RefusedError as error:
            raise UsageError(f"The model '{self.name}' cannot be used: {error}.") from error

    def identity(self, parameters: dict[str, Any]) -> ModelIdentity:
        """What makes it the same model, together with how it is loaded."""
        name = self.name + (f" ({self.layers} layers)" if self.layers is not None else "")
        made_of = {"content": self.content, "layers": self.layers}
        kept = {key: value for key, value in made_of.items() if value is not None}
        in_folder = self.origin.may_be_folder and self.checkpoint is not None and self.checkpoint.commit is None
        return ModelIdentity(
            f"{self.adapter}:{self.name}",
            self.adapter,
            name,
            parameters={**parameters, **kept},
            content_sha256=self.content if in_folder else None,
        )


def find_target(text: str, layers: int | None, home: Path) -> MeasuredModel:
    """The model that `--model` names.

    Args:
        text: `zoo:NAME`, `random:HUB-NAME` (`random:llama` for a tiny one), `packaged:NAME`,
            `local:FOLDER`, `local:FILE.gguf` or `local:HUB-ID@REVISION`.
        layers: of a random model.
        home: the home folder, with models that were built or fetched.

    Raises:
        UsageError: there is no such model, or it holds nothing that may be read.
        UnreachableError: the hub does not answer.
    """
    adapter, _, name = text.partition(":")
    origin = ORIGINS.get(adapter)
    if layers is not None and not (origin and origin.has_choice_of_layers):
        having = ", ".join(f"{each}:" for each, of in ORIGINS.items() if of.has_choice_of_layers)
        raise UsageError(f"--layers goes with {having} models; others keep their layers.")
    if origin is None or not name:
        *most, last = [of.form for of in ORIGINS.values()]
        raise UsageError(f"'{text}' is no model of the efficiency tracks; --model takes {', '.join(most)}, {last}.")
    return _FINDERS[adapter](name, layers, home)


def _local(name: str, layers: int | None, home: Path) -> MeasuredModel:
    found = find_checkpoint(name, home)
    return MeasuredModel("local", found.name, found, found.content or found.commit)


def _packaged(name: str, layers: int | None, home: Path) -> MeasuredModel:
    found = packaged_checkpoint(name, home)
    return MeasuredModel("packaged", found.name, found, found.content)


def _zoo(name: str, layers: int | None, home: Path) -> MeasuredModel:
    from vivace.zoo.registry import plain_name, recipe_class
    from vivace.zoo.shipped import folder_of

    plain = plain_name(name)
    if needed := recipe_class(plain).needs:
        raise UsageError(f"zoo:{plain} is a drafter and predicts nothing by itself; take zoo:{needed[0]}.")
    folder = folder_of(plain, home / "zoo")
    return MeasuredModel("zoo", plain, Checkpoint(plain, folder=folder), checkpoint_sha256(folder))


def _random(name: str, layers: int | None, home: Path) -> MeasuredModel:
    from vivace_methods.models.random import random_configuration
    from vivace_methods.protocol import MethodError

    try:
        configuration = random_configuration(name, layers=layers)
    except MethodError as error:
        raise UsageError(str(error)) from error
    return MeasuredModel("random", name, None, None, configuration.num_hidden_layers if layers is not None else None)


_FINDERS: dict[str, Callable[[str, int | None, Path], MeasuredModel]] = {
    "packaged": _packaged,
    "zoo": _zoo,
    "random": _random,
    "local": _local,
}
"""Origin → what finds a model of it."""

TOKENIZERS = ("tokenizer*", "vocab*", "merges.txt", "*.model", "*.tiktoken", "tekken.json", "added_tokens.json")
"""Names of the files that hold a tokenizer; a checkpoint that has none of them reads ids."""


def folder_of_fitted(zoo: Path) -> Any:
    """What finds a fitted thing by the name that an arm gives it: a folder, `zoo:NAME` or `packaged:NAME`."""

    def find(name: str) -> Path:
        from vivace.models import packaged
        from vivace.zoo.registry import PREFIX
        from vivace.zoo.shipped import folder_of

        if name.startswith(PREFIX):
            return folder_of(name, zoo)
        if name.startswith(packaged.PREFIX):
            return packaged.recipe_folder(name)
        if not Path(name).is_dir():
            raise UsageError(f"There is no folder '{name}'; write :FOLDER, :zoo:NAME or :packaged:NAME.")
        return Path(name)

    return find


def loaded(
    folder: Path | None, random: str | None, layers: int | None, *, dtype: str, device: str, seed: int
) -> tuple[Any, Any]:
    """A model in evaluation mode, and its tokenizer; None for a random model, and for a folder that holds none.

    Args:
        folder: with its weights; None for a random one.
        random: whose shapes a random one takes.
        layers: of a random one; None for all.
        dtype: of the weights.
        device: `cpu` or `cuda`.
        seed: of random weights.

    Raises:
        MethodError: there is no such device, the weights or the tokenizer cannot be read, or memory is short.
    """
    import torch

    from vivace_methods.models.loading import available_device, load_model
    from vivace_methods.models.random import random_configuration, random_model

    numbers = getattr(torch, dtype)
    if folder is None:
        assert random is not None
        configuration = random_configuration(random, layers=layers)
        return random_model(configuration, dtype=numbers, device=available_device(device), seed=seed), None
    return load_model(folder, dtype=numbers, device=device), tokenizer_of(folder)


def tokenizer_of(folder: Path | None) -> Any:
    """The tokenizer of a folder; None where it holds none, and for a random model.

    Raises:
        MethodError: it cannot be read.
    """
    if folder is None or not any(file for pattern in TOKENIZERS for file in folder.glob(pattern)):
        return None
    from transformers import AutoTokenizer

    from vivace_methods.protocol import MethodError

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise MethodError(f"There is no tokenizer in {folder} that transformers can read.") from error


def loaded_to_fit(target: MeasuredModel, folder: Path | None, *, dtype: str, device: str) -> tuple[Any, Any]:
    """As `loaded`, and also a model that hears, as the adapter `local` runs it: its text decoder can be fitted.

    Args:
        target: the model.
        folder: with its weights; None for a random one.
        dtype: of the weights.
        device: `cpu` or `cuda`.

    Raises:
        MethodError: as `loaded` says.
    """
    if folder is None or _is_causal(folder):
        return loaded(folder, target.name, target.layers, dtype=dtype, device=device, seed=1)
    import torch

    from vivace.models.local.failures import RefusedError
    from vivace.models.local.loading import load_checkpoint
    from vivace_methods.models.free_memory import require_free, stored_bytes
    from vivace_methods.models.loading import available_device
    from vivace_methods.protocol import MethodError

    place = available_device(device)
    needed = stored_bytes(folder, getattr(torch, dtype))
    require_free(needed, place, f"The model in {folder}", "take one of numbers of fewer bits")
    try:
        processor, model = load_checkpoint(folder, dtype)
    except RefusedError as error:
        raise MethodError(f"The model in {folder} cannot be loaded: {error}.") from error
    return model.to(place).eval(), getattr(processor, "tokenizer", processor)


def _is_causal(folder: Path) -> bool:
    """Whether a folder is to be read as a causal language model: also where it is none that anything can read."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    from vivace.models.local.failures import RefusedError
    from vivace.models.local.loading import config_of

    try:
        return MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config_of(folder)), None) is not None
    except RefusedError:
        return True
