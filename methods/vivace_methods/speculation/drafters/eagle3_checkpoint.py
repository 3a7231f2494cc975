"""EAGLE-3's drafters in folders: read strictly in each public layout, and written.

Three layouts are read, all as safetensors:

- SafeAILab's, of EAGLE itself: a flat `config.json`, weights under `midlayer.`, and no word about the layers of the
  target that are read, which are then EAGLE-3's own choice;
- SpecForge's, which SGLang reads: the same, with the layers in `eagle_config`, named by the layers whose *outputs*
  they are;
- speculators', which vLLM reads: a nested `config.json`, weights under `layers.0.`, and layers named by their inputs.

`hidden_states[i]` of transformers is the input of layer i, and the output of layer i - 1. Drafters are written in
SpecForge's layout.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import LlamaConfig

from vivace_methods.protocol import MethodError
from vivace_methods.speculation.drafters.eagle3 import TAPS, Eagle3Drafter, usual_taps

_WEIGHTS = "model.safetensors"
_UNKNOWN_OPTIONS = ("bias", "attention_bias", "mlp_bias", "use_sliding_window")
"""Options that change what is computed: a drafter that sets one is refused, not misread."""
_WINDOWED = "sliding_attention"
_NORMS = ("norm_before_fc", "fc_norm", "norm_output", "norm_before_residual")
"""Options that some write beside the layers that are read, in `eagle_config`."""
_LAYERS = "eagle_aux_hidden_state_layer_ids"
_SIZES = (
    "vocab_size", "draft_vocab_size", "hidden_size", "target_hidden_size", "intermediate_size", "num_attention_heads",
    "num_key_value_heads", "head_dim",
)  # fmt: skip
_EMBEDDING = "embed_tokens.weight"
_TABLES = ("d2t", "t2d")


@dataclass(frozen=True)
class _Layout:
    """How a checkpoint is written.

    Attributes:
        name: of those who write it so.
        prefix: of the layer's weights.
        configuration: flat, as SafeAILab's is.
        taps: layers whose inputs are read; None where it does not say.
    """

    name: str
    prefix: str
    configuration: dict[str, Any]
    taps: Any

    def written(self, name: str) -> str:
        """A weight's name in the layout."""
        return self.prefix + name.removeprefix("midlayer.") if name.startswith("midlayer.") else name


def save_drafter(drafter: Eagle3Drafter, folder: Path) -> None:
    """Write a drafter's `config.json` and bf16 safetensors, in SpecForge's layout."""
    weights = {
        name: (weight.to(torch.bfloat16) if weight.is_floating_point() else weight).contiguous()
        for name, weight in drafter.state_dict().items()
    }
    save_file(weights, folder / _WEIGHTS, metadata={"format": "pt"})
    configuration = {**drafter.config.to_dict(), "dtype": "bfloat16"}
    del configuration["taps"]
    configuration["eagle_config"] = {_LAYERS: [tap - 1 for tap in drafter.taps], "use_aux_hidden_state": True}
    (folder / "config.json").write_text(json.dumps(configuration, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def check_drafter(folder: Path, configuration: Any = None) -> None:
    """See that a folder holds a drafter, by the names and shapes of its weights, without reading them.

    Args:
        folder: with `config.json` and `model.safetensors`.
        configuration: of the target; None where it is not known.

    Raises:
        MethodError: it is not there, is damaged, is of another layout, or belongs to another target.
    """
    layout = _layout(folder)
    found = _shapes(folder)
    if configuration is not None:
        target = configuration.get_text_config(decoder=True)
        _names(folder, layout, _configuration(folder, layout, target), target.hidden_size, found)


def load_drafter(folder: Path, model: Any) -> Eagle3Drafter:
    """A drafter in one of EAGLE-3's public layouts, for a target, in the target's type and on its device.

    Args:
        folder: with `config.json` and `model.safetensors`.
        model: the target.

    Raises:
        MethodError: it is not there, is damaged, is of another layout, or belongs to another target.
    """
    layout = _layout(folder)
    configuration = _configuration(folder, layout, model.config.get_text_config(decoder=True))
    weights = _weights(folder)
    embedding = model.get_input_embeddings()
    shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    names = _names(folder, layout, configuration, embedding.embedding_dim, shapes)
    own = weights.pop(_EMBEDDING, None)
    if own is not None:
        embedding = nn.Embedding.from_pretrained(own)
    if configuration.draft_vocab_size == configuration.vocab_size:
        _drop_tables_that_change_nothing(folder, weights)
    drafter = Eagle3Drafter(configuration, embedding)
    drafter.load_state_dict({names[name]: weight for name, weight in weights.items()})
    drafter.checkpoint = f"{folder.name} ({layout.name})"
    _require_known_tokens(folder, drafter)
    if own is not None:
        embedding.to(device=model.device, dtype=model.dtype)
    drafter.to(device=model.device, dtype=model.dtype).eval()
    return drafter


def _layout(folder: Path) -> _Layout:
    try:
        written = json.loads((folder / "config.json").read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise MethodError(f"{folder} holds no drafter: there is no config.json in it.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise MethodError(
            f"{folder / 'config.json'} cannot be read as JSON ({error}): fetch the drafter again."
        ) from error
    if not isinstance(written, dict) or "draft_vocab_size" not in written:
        raise MethodError(f"{folder} holds no EAGLE-3 drafter: there is no draft_vocab_size in its config.json.")
    if "speculators_model_type" in written:
        inner = written.get("transformer_layer_config")
        if written["speculators_model_type"] != "eagle3" or not isinstance(inner, dict):
            raise MethodError(
                f"{folder} holds speculators' {written['speculators_model_type']} and not eagle3, or lacks its "
                "transformer_layer_config."
            )
        outer = {name: value for name, value in written.items() if name != "transformer_layer_config"}
        outer.pop("architectures", None)
        return _Layout("speculators", "layers.0.", {**inner, **outer}, written.get(_LAYERS))
    inner = written.get("eagle_config") or {}
    inner = inner if isinstance(inner, dict) else {}
    written = {**{name: inner[name] for name in _NORMS if name in inner}, **written}
    ids = inner.get(_LAYERS)
    if ids is None:
        return _Layout("SafeAILab", "midlayer.", written, written.get(_LAYERS))
    is_list = isinstance(ids, list) and all(type(each) is int for each in ids)
    return _Layout("SpecForge", "midlayer.", written, [each + 1 for each in ids] if is_list else ids)


def _configuration(folder: Path, layout: _Layout, target: Any) -> LlamaConfig:
    written = layout.configuration
    for option in _UNKNOWN_OPTIONS:
        if written.get(option):
            raise MethodError(
                f"The drafter in {folder} sets {option}, which is not EAGLE-3's and is not computed here."
            )
    if _WINDOWED in (written.get("layer_types") or ()):
        raise MethodError(
            f"The drafter in {folder} looks at a window of the latest positions (layer_types), which is not "
            "EAGLE-3's and is not computed here."
        )
    if written.get("num_hidden_layers", 1) != 1:
        raise MethodError(
            f"The drafter in {folder} has {written['num_hidden_layers']} layers, and EAGLE-3's has one."
        )
    _require_target(folder, written, target)
    layers = target.num_hidden_layers
    taps = list(usual_taps(layers)) if layout.taps is None else layout.taps
    known = isinstance(taps, list) and all(type(tap) is int and 0 <= tap < layers for tap in taps)
    if not known or len(taps) != TAPS:
        raise MethodError(
            f"The drafter in {folder} reads the layers {taps} and the model has those from 0 to {layers - 1}: "
            "it belongs to another model."
        )
    _require_sizes(folder, written)
    try:
        return LlamaConfig(**{**written, "taps": taps, "num_hidden_layers": 1})
    except (TypeError, ValueError, KeyError, AttributeError, StrictDataclassError) as error:
        raise _no_configuration(folder, error) from error


def _no_configuration(folder: Path, error: Exception) -> MethodError:
    said = " ".join(str(error).split())
    return MethodError(f"{folder / 'config.json'} is no configuration of a drafter ({said}).")


def _require_sizes(folder: Path, written: Mapping[str, Any]) -> None:
    """Refuse sizes that are no numbers of anything, and heads that no group has."""
    for name in _SIZES:
        value = written.get(name, 1)
        if value is not None and (type(value) is not int or not 0 < value < 2**31):
            raise MethodError(f"The drafter in {folder} has a {name} of {value!r}, and it must be a number from 1.")
    heads = written.get("num_attention_heads") or 1
    groups = written.get("num_key_value_heads") or heads
    if heads % groups:
        raise MethodError(f"The drafter in {folder} has {heads} heads, which {groups} key-value heads cannot share.")


def _require_target(folder: Path, written: Mapping[str, Any], target: Any) -> None:
    """Refuse a drafter of another target, as far as sizes tell."""
    for name, mine, its in (
        ("tokens", written.get("vocab_size"), target.vocab_size),
        ("hidden numbers", written.get("target_hidden_size") or written.get("hidden_size"), target.hidden_size),
    ):
        if mine != its:
            raise MethodError(
                f"The drafter in {folder} was made for a model of {mine} {name}, and this one has {its}: "
                "it belongs to another model."
            )


def _drop_tables_that_change_nothing(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    """Tables of a draft vocabulary that is the target's own, which some write and some leave out."""
    moved, drafted = (weights.pop(name, None) for name in _TABLES)
    if (moved is not None and bool(moved.any())) or (drafted is not None and not bool(drafted.all())):
        raise MethodError(
            f"The tables d2t and t2d in {folder} move tokens, though the draft vocabulary is the model's whole one: "
            "they are damaged."
        )


def _weights_file(folder: Path) -> Path:
    path = folder / _WEIGHTS
    if not path.is_file():
        pickled = " They are pickled, which can run foreign code: convert them." if any(folder.glob("*.bin")) else ""
        raise MethodError(f"There are no weights in {folder}: {_WEIGHTS} is missing.{pickled}")
    return path


def _shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """The names and shapes of the weights, from the head of their file."""
    path = _weights_file(folder)
    try:
        with safe_open(path, "pt") as opened:
            return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    path = _weights_file(folder)
    try:
        weights: dict[str, torch.Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error
    return weights


def _damaged(path: Path, error: Exception) -> MethodError:
    return MethodError(f"{path} is damaged ({error}): fetch or build the drafter again.")


def _names(
    folder: Path, layout: _Layout, configuration: LlamaConfig, width: int, found: Mapping[str, tuple[int, ...]]
) -> dict[str, str]:
    """Ours of each name in the layout.

    Args:
        folder: of the drafter.
        layout: of its checkpoint.
        configuration: of the drafter.
        width: of the target's embedding.
        found: the names and shapes of what is there.

    Raises:
        MethodError: that is not, name by name and shape by shape, the configuration's drafter.
    """
    hidden, vocabulary = configuration.hidden_size, configuration.vocab_size
    try:
        with torch.device("meta"):
            made = Eagle3Drafter(configuration, nn.Embedding(vocabulary, hidden)).state_dict()
    except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise _no_configuration(folder, error) from error
    names = {layout.written(name): name for name in made}
    expected = {name: tuple(made[ours].shape) for name, ours in names.items()}
    if _EMBEDDING in found:
        expected[_EMBEDDING] = (vocabulary, hidden)
    elif width != hidden:
        raise MethodError(
            f"The drafter in {folder} is {hidden} wide and the embedding it reads is {width}: it belongs to another "
            "model."
        )
    if configuration.draft_vocab_size == vocabulary:
        found = {name: shape for name, shape in found.items() if name not in _TABLES}
    _require_same(folder, expected, found)
    return names


def _require_same(folder: Path, expected: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Refuse weights that are not, name by name and shape by shape, those of the drafter."""
    missing, unknown = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if missing or unknown:
        raise MethodError(
            f"The weights in {folder} are not an EAGLE-3 drafter's: {_few('missing', missing)}"
            f"{' and ' if missing and unknown else ''}{_few('unknown', unknown)}."
        )
    for name, shape in expected.items():
        if found[name] != shape:
            raise MethodError(f"The weights {name} in {folder} are {found[name]}, and config.json means {shape}.")


def _few(what: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{what} {', '.join(names[:3])}{more}"


def _require_known_tokens(folder: Path, drafter: Eagle3Drafter) -> None:
    """Refuse a draft vocabulary with tokens that the target has not, or whose two tables do not agree."""
    count, whole = drafter.config.draft_vocab_size, drafter.config.vocab_size
    if count == whole:
        return
    ids = drafter.target_ids(torch.arange(count))
    if int(ids.min()) < 0 or int(ids.max()) >= whole:
        raise MethodError(f"The table d2t in {folder} leads to tokens that the model has not: it is damaged.")
    if not torch.equal(torch.zeros(whole, dtype=torch.bool).index_fill(0, ids, True), drafter.t2d.bool()):
        raise MethodError(f"The tables d2t and t2d in {folder} name different tokens: one of them is damaged.")
