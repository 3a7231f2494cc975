"""The drafter of EAGLE-3: one decoder layer that goes on from what a big model's layers said of the tokens so far."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import (
    LlamaMLP,
    LlamaRMSNorm,
    LlamaRotaryEmbedding,
    apply_rotary_pos_emb,
)

from vivace_methods.protocol import MethodError

TAPS = 3
"""Layers of the target whose inputs the drafter reads."""
_WEIGHTS = "model.safetensors"
_UNKNOWN_OPTIONS = ("fc_norm", "norm_before_fc", "norm_output", "bias", "attention_bias", "mlp_bias")
"""Options of later drafters, which change what is computed: a drafter that sets one is refused, not misread."""


class KeysAndValues(NamedTuple):
    """What one layer keeps of earlier positions, each of shape (rows, key-value heads, positions, head width)."""

    keys: torch.Tensor
    values: torch.Tensor


class Attention(nn.Module):  # type: ignore[misc]
    """Attention over the drafter's positions, whose inputs are twice as wide as the model.

    Args:
        configuration: of the drafter.
    """

    def __init__(self, configuration: LlamaConfig) -> None:
        super().__init__()
        self.heads = configuration.num_attention_heads
        self.groups = self.heads // configuration.num_key_value_heads
        self.width = configuration.head_dim
        hidden, keys = configuration.hidden_size, configuration.num_key_value_heads * self.width
        self.q_proj = nn.Linear(2 * hidden, self.heads * self.width, bias=False)
        self.k_proj = nn.Linear(2 * hidden, keys, bias=False)
        self.v_proj = nn.Linear(2 * hidden, keys, bias=False)
        self.o_proj = nn.Linear(self.heads * self.width, hidden, bias=False)

    def project(
        self, wide: torch.Tensor, turns: tuple[torch.Tensor, torch.Tensor]
    ) -> tuple[torch.Tensor, KeysAndValues]:
        """Queries of shape (rows, heads, positions, head width), with keys and values for as many heads.

        Args:
            wide: shape (rows, positions, 2 · hidden).
            turns: cosines and sines of the positions.
        """
        shape = (*wide.shape[:2], -1, self.width)
        queries, keys, values = (
            projection(wide).view(shape).transpose(1, 2) for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        queries, keys = apply_rotary_pos_emb(queries, keys, *turns)
        return queries, KeysAndValues(keys, values)

    def output(self, attended: torch.Tensor) -> torch.Tensor:
        """What the heads found, shape (rows, heads, positions, head width), as (rows, positions, hidden)."""
        projected: torch.Tensor = self.o_proj(attended.transpose(1, 2).flatten(2))
        return projected


class Midlayer(nn.Module):  # type: ignore[misc]
    """The drafter's one decoder layer.

    Args:
        configuration: of the drafter.
    """

    def __init__(self, configuration: LlamaConfig) -> None:
        super().__init__()
        hidden, epsilon = configuration.hidden_size, configuration.rms_norm_eps
        self.input_layernorm = LlamaRMSNorm(hidden, eps=epsilon)
        self.hidden_norm = LlamaRMSNorm(hidden, eps=epsilon)
        self.self_attn = Attention(configuration)
        self.post_attention_layernorm = LlamaRMSNorm(hidden, eps=epsilon)
        self.mlp = LlamaMLP(configuration)
        self._normed_residual = bool(getattr(configuration, "norm_before_residual", False))

    def wide(self, embedded: torch.Tensor, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The attention's input, (rows, positions, 2 · hidden), and what its output is added to."""
        normed = self.hidden_norm(features)
        residual = normed if self._normed_residual else features
        return torch.cat([self.input_layernorm(embedded), normed], -1), residual

    def finish(self, residual: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        """The layer's output from its residual and what its heads found."""
        after = residual + self.self_attn.output(attended)
        out: torch.Tensor = after + self.mlp(self.post_attention_layernorm(after))
        return out


class Eagle3Drafter(nn.Module):  # type: ignore[misc]
    """The drafter of EAGLE-3, with the names of its public checkpoints.

    A position pairs what the target says at a token (its feature) with the token that follows, and predicts the one
    after that. The feature is made by `fuse` of three of the target's layers where the target has seen the token,
    and is the drafter's own last output where it has not.

    Source: Li et al., "EAGLE-3: Scaling up Inference Acceleration of Large Language Models via Training-Time Test",
    arXiv 2503.01840, section 3.1.

    Args:
        configuration: a Llama configuration of one layer, with `draft_vocab_size` and, in `eagle_config`, the layers
            of the target whose inputs are read.
        embedding: of the target, whose weights are shared and not part of the drafter.
    """

    d2t: torch.Tensor
    t2d: torch.Tensor

    def __init__(self, configuration: LlamaConfig, embedding: nn.Embedding) -> None:
        super().__init__()
        self.config = configuration
        self._embedding = (embedding,)  # in a tuple: the target's weights are no parameters of the drafter
        hidden = configuration.hidden_size
        target_hidden = getattr(configuration, "target_hidden_size", None) or hidden
        self.fc = nn.Linear(TAPS * target_hidden, hidden, bias=False)
        self.midlayer = Midlayer(configuration)
        self.norm = LlamaRMSNorm(hidden, eps=configuration.rms_norm_eps)
        self.lm_head = nn.Linear(hidden, configuration.draft_vocab_size, bias=False)
        self._rotary = LlamaRotaryEmbedding(configuration)
        self._own_vocabulary = configuration.draft_vocab_size != configuration.vocab_size
        if self._own_vocabulary:
            self.register_buffer("d2t", torch.zeros(configuration.draft_vocab_size, dtype=torch.int64))
            self.register_buffer("t2d", torch.zeros(configuration.vocab_size, dtype=torch.bool))

    @property
    def taps(self) -> tuple[int, ...]:
        """The layers of the target whose inputs are read, from 0."""
        return tuple(self.config.eagle_config["eagle_aux_hidden_state_layer_ids"])

    def fuse(self, tapped: Sequence[torch.Tensor]) -> torch.Tensor:
        """Features, shape (rows, positions, hidden), from the inputs of the tapped layers."""
        fused: torch.Tensor = self.fc(torch.cat(list(tapped), -1))
        return fused

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """The target's embedding of token ids."""
        embedded: torch.Tensor = self._embedding[0](tokens)
        return embedded

    def turns(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines of positions, shape (rows, positions)."""
        cosines, sines = self._rotary(self.norm.weight, positions)
        return cosines, sines

    def forward(
        self, tokens: torch.Tensor, features: torch.Tensor, past: KeysAndValues | None
    ) -> tuple[torch.Tensor, KeysAndValues]:
        """Run some more positions, each of which sees those before it.

        Args:
            tokens: ids, each the token that follows its feature's, shape (1, positions).
            features: shape (1, positions, hidden).
            past: of all positions before these; None where there are none.

        Returns:
            The layer's output, shape (1, positions, hidden), and keys and values with these positions.
        """
        before = 0 if past is None else past.keys.shape[2]
        positions = torch.arange(before, before + tokens.shape[1], device=tokens.device)
        seen = torch.arange(before + tokens.shape[1], device=tokens.device) <= positions[:, None]
        return self._attend(tokens, features, past, positions, seen)

    def side_by_side(
        self,
        tokens: torch.Tensor,
        features: torch.Tensor,
        past: KeysAndValues,
        ancestry: torch.Tensor,
        position: int,
    ) -> tuple[torch.Tensor, KeysAndValues]:
        """Run nodes of one depth of a tree, which do not see each other.

        Args:
            tokens: ids, shape (1, nodes).
            features: of the nodes they follow, shape (1, nodes, hidden).
            past: of all verified positions, and of the nodes that were run before.
            ancestry: whether a node stands on one of those nodes or is it, shape (nodes, nodes so far).
            position: of all of these nodes, for the rotary embedding.

        Returns:
            The layer's output, shape (1, nodes, hidden), and keys and values with these nodes.
        """
        count, known = ancestry.shape
        verified = ancestry.new_ones(count, past.keys.shape[2] + count - known)
        positions = torch.full((count,), position, device=tokens.device)
        return self._attend(tokens, features, past, positions, torch.cat([verified, ancestry], 1))

    def _attend(
        self,
        tokens: torch.Tensor,
        features: torch.Tensor,
        past: KeysAndValues | None,
        positions: torch.Tensor,
        seen: torch.Tensor,
    ) -> tuple[torch.Tensor, KeysAndValues]:
        wide, residual = self.midlayer.wide(self.embed(tokens), features)
        queries, new = self.midlayer.self_attn.project(wide, self.turns(positions[None]))
        kept = new if past is None else KeysAndValues(*(torch.cat(pair, 2) for pair in zip(past, new, strict=True)))
        attended = nn.functional.scaled_dot_product_attention(
            queries, kept.keys, kept.values, attn_mask=seen, enable_gqa=self.midlayer.self_attn.groups > 1
        )
        return self.midlayer.finish(residual, attended), kept

    def logits(self, out: torch.Tensor) -> torch.Tensor:
        """Over the draft vocabulary, from the layer's output."""
        logits: torch.Tensor = self.lm_head(self.norm(out))
        return logits

    def target_ids(self, drafted: torch.Tensor) -> torch.Tensor:
        """The target's token ids of ids in the draft vocabulary, which the checkpoint stores as differences."""
        return drafted + self.d2t[drafted] if self._own_vocabulary else drafted


def new_configuration(target: Any, *, intermediate: int, taps: Sequence[int] | None = None) -> LlamaConfig:
    """The configuration of a new drafter for a target, with the target's whole vocabulary.

    Args:
        target: the configuration of the target.
        intermediate: width of the drafter's feed-forward part.
        taps: layers of the target whose inputs are read; None for EAGLE-3's own: 2, the middle, and the third last.
    """
    layers = target.num_hidden_layers
    return LlamaConfig(
        architectures=["LlamaForCausalLMEagle3"],
        vocab_size=target.vocab_size,
        draft_vocab_size=target.vocab_size,
        hidden_size=target.hidden_size,
        intermediate_size=intermediate,
        num_hidden_layers=1,
        num_attention_heads=target.num_attention_heads,
        num_key_value_heads=target.num_key_value_heads,
        head_dim=getattr(target, "head_dim", None) or target.hidden_size // target.num_attention_heads,
        rms_norm_eps=target.rms_norm_eps,
        rope_parameters=dict(target.rope_parameters),
        max_position_embeddings=target.max_position_embeddings,
        pad_token_id=target.pad_token_id,
        bos_token_id=target.bos_token_id,
        eos_token_id=target.eos_token_id,
        tie_word_embeddings=False,
        eagle_config={
            "eagle_aux_hidden_state_layer_ids": list(taps or (2, layers // 2, layers - 3)),
            "use_aux_hidden_state": True,
        },
    )


def save_drafter(drafter: Eagle3Drafter, folder: Path) -> None:
    """Write a drafter's `config.json` and bf16 safetensors, in the public layout."""
    weights = {
        name: (weight.to(torch.bfloat16) if weight.is_floating_point() else weight).contiguous()
        for name, weight in drafter.state_dict().items()
    }
    save_file(weights, folder / _WEIGHTS, metadata={"format": "pt"})
    configuration = {**drafter.config.to_dict(), "dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(configuration, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load_drafter(folder: Path, model: Any) -> Eagle3Drafter:
    """A drafter in EAGLE-3's public layout, for a target, in the target's type and on its device.

    Args:
        folder: with `config.json` and `model.safetensors`.
        model: the target.

    Raises:
        MethodError: it is not there, is damaged, is of another layout, or belongs to another target.
    """
    configuration = _configuration(folder, model.config)
    weights = _weights(folder)
    embedding = model.get_input_embeddings()
    own = weights.pop("embed_tokens.weight", None)
    if own is not None:
        embedding = nn.Embedding.from_pretrained(own)
    if embedding.embedding_dim != configuration.hidden_size:
        raise MethodError(
            f"The drafter in {folder} is {configuration.hidden_size} wide and the embedding it reads is "
            f"{embedding.embedding_dim}: it belongs to another model."
        )
    with torch.device("meta"):
        expected = {
            name: tuple(weight.shape) for name, weight in Eagle3Drafter(configuration, embedding).state_dict().items()
        }
    _require_same(folder, expected, {name: tuple(weight.shape) for name, weight in weights.items()})
    drafter = Eagle3Drafter(configuration, embedding)
    drafter.load_state_dict(weights)
    _require_known_tokens(folder, drafter)
    if own is not None:
        embedding.to(device=model.device, dtype=model.dtype)
    drafter.to(device=model.device, dtype=model.dtype).eval()
    return drafter


def _configuration(folder: Path, target: Any) -> LlamaConfig:
    try:
        written = json.loads((folder / "config.json").read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise MethodError(f"{folder} holds no drafter: there is no config.json in it.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise MethodError(
            f"{folder / 'config.json'} cannot be read as JSON ({error}): fetch the drafter again."
        ) from error
    if not isinstance(written, dict) or "draft_vocab_size" not in written:
        raise MethodError(
            f"{folder} holds no EAGLE-3 drafter: its config.json has no draft_vocab_size. Whole models and "
            "drafters in speculators' layout are not read."
        )
    for option in _UNKNOWN_OPTIONS:
        if written.get(option):
            raise MethodError(
                f"The drafter in {folder} sets {option}, which is not EAGLE-3's and is not computed here."
            )
    if written.get("num_hidden_layers", 1) != 1:
        raise MethodError(
            f"The drafter in {folder} has {written['num_hidden_layers']} layers, and EAGLE-3's has one."
        )
    _require_target(folder, written, target)
    layers = target.num_hidden_layers
    written.setdefault("eagle_config", {})
    written["eagle_config"].setdefault("eagle_aux_hidden_state_layer_ids", [2, layers // 2, layers - 3])
    taps = written["eagle_config"]["eagle_aux_hidden_state_layer_ids"]
    if len(taps) != TAPS or not all(isinstance(tap, int) and 0 <= tap < layers for tap in taps):
        raise MethodError(
            f"The drafter in {folder} reads the layers {taps} and the model has those from 0 to {layers - 1}: "
            "it belongs to another model."
        )
    return LlamaConfig(**written)


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


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    path = folder / _WEIGHTS
    if not path.is_file():
        pickled = " They are pickled, which can run foreign code: convert them." if any(folder.glob("*.bin")) else ""
        raise MethodError(f"There are no weights in {folder}: {_WEIGHTS} is missing.{pickled}")
    try:
        weights: dict[str, torch.Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise MethodError(f"{path} is damaged ({error}): fetch or build the drafter again.") from error
    return weights


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
    """Refuse a draft vocabulary with tokens that the target has not."""
    ids = drafter.target_ids(torch.arange(drafter.config.draft_vocab_size))
    if int(ids.min()) < 0 or int(ids.max()) >= drafter.config.vocab_size:
        raise MethodError(f"The table d2t in {folder} leads to tokens that the model has not: it is damaged.")
