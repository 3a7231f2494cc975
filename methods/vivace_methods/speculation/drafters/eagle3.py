"""The drafter of EAGLE-3: one decoder layer that goes on from what a big model's layers said of the tokens so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import (
    LlamaMLP,
    LlamaRMSNorm,
    LlamaRotaryEmbedding,
    apply_rotary_pos_emb,
)

TAPS = 3
"""Layers of the target whose inputs the drafter reads."""


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
    arXiv 2503.01840, section 3.1. Three options of EAGLE-3.1 (arXiv 2605.09992) are read from the configuration:
    `norm_before_fc` normalises what three layers say as one vector (`input_norm`), `fc_norm` each by itself, and
    `norm_output` hands the normalised output on to the next step.

    Args:
        configuration: a Llama configuration of one layer, with `draft_vocab_size` and, as `taps`, the layers of the
            target whose inputs are read.
        embedding: of the target, whose weights are shared and not part of the drafter.
    """

    d2t: torch.Tensor
    t2d: torch.Tensor
    checkpoint = "unnamed"
    """What was loaded, as it is named beside results."""

    def __init__(self, configuration: LlamaConfig, embedding: nn.Embedding) -> None:
        super().__init__()
        self.config = configuration
        self._embedding = (embedding,)  # in a tuple: the target's weights are no parameters of the drafter
        hidden = configuration.hidden_size
        target_hidden = getattr(configuration, "target_hidden_size", None) or hidden
        self.fc = nn.Linear(TAPS * target_hidden, hidden, bias=False)
        epsilon = configuration.rms_norm_eps
        self.input_norm = self.fc_norm = None
        if getattr(configuration, "norm_before_fc", False):
            self.input_norm = LlamaRMSNorm(TAPS * target_hidden, eps=epsilon)
        if getattr(configuration, "fc_norm", False):
            self.fc_norm = nn.ModuleList(LlamaRMSNorm(target_hidden, eps=epsilon) for _ in range(TAPS))
        self.midlayer = Midlayer(configuration)
        self.norm = LlamaRMSNorm(hidden, eps=epsilon)
        self._normed_output = bool(getattr(configuration, "norm_output", False))
        self.lm_head = nn.Linear(hidden, configuration.draft_vocab_size, bias=False)
        self._rotary = LlamaRotaryEmbedding(configuration)
        self._own_vocabulary = configuration.draft_vocab_size != configuration.vocab_size
        if self._own_vocabulary:
            self.register_buffer("d2t", torch.zeros(configuration.draft_vocab_size, dtype=torch.int64))
            self.register_buffer("t2d", torch.zeros(configuration.vocab_size, dtype=torch.bool))

    @property
    def taps(self) -> tuple[int, ...]:
        """The layers of the target whose inputs are read, from 0."""
        return tuple(self.config.taps)

    def fuse(self, tapped: Sequence[torch.Tensor]) -> torch.Tensor:
        """Features, shape (rows, positions, hidden), from the inputs of the tapped layers."""
        if self.fc_norm is not None:
            tapped = [norm(each) for norm, each in zip(self.fc_norm, tapped, strict=True)]
        joined = torch.cat(list(tapped), -1)
        fused: torch.Tensor = self.fc(joined if self.input_norm is None else self.input_norm(joined))
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
        return self.finish(residual, attended), kept

    def finish(self, residual: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        """The output from the layer's residual and what its heads found: what the next step goes on from."""
        out = self.midlayer.finish(residual, attended)
        return self.norm(out) if self._normed_output else out

    def logits(self, out: torch.Tensor) -> torch.Tensor:
        """Over the draft vocabulary, from the output."""
        logits: torch.Tensor = self.lm_head(out if self._normed_output else self.norm(out))
        return logits

    def target_ids(self, drafted: torch.Tensor) -> torch.Tensor:
        """The target's token ids of ids in the draft vocabulary, which the checkpoint stores as differences."""
        return drafted + self.d2t[drafted] if self._own_vocabulary else drafted


def new_configuration(
    target: Any, *, intermediate: int, taps: Sequence[int] | None = None, drafted: int | None = None
) -> LlamaConfig:
    """The configuration of a new drafter for a target.

    Args:
        target: the configuration of the target.
        intermediate: width of the drafter's feed-forward part.
        taps: layers of the target whose inputs are read; None for EAGLE-3's own: 2, the middle, and the third last.
        drafted: tokens that it may draft; None for the target's whole vocabulary.
    """
    return LlamaConfig(
        architectures=["LlamaForCausalLMEagle3"],
        vocab_size=target.vocab_size,
        draft_vocab_size=drafted or target.vocab_size,
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
        taps=list(taps or usual_taps(target.num_hidden_layers)),
    )


def usual_taps(layers: int) -> tuple[int, int, int]:
    """EAGLE-3's own choice of the layers whose inputs are read: the third, the middle one, and the third last."""
    return 2, layers // 2, layers - 3
