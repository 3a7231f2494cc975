"""Chains of drafted tokens, each verified by one pass of the model: how EAGLE-3's drafter is used here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from vivace_methods.decoding.caches import negotiate
from vivace_methods.decoding.run import Run
from vivace_methods.errors import MethodError
from vivace_methods.models import implementations
from vivace_methods.models.layer_inputs import layers_of
from vivace_methods.models.ledger import Pass
from vivace_methods.models.passes import passes_of
from vivace_methods.protocol import Attached, CacheNeed, Decoder, Read
from vivace_methods.speculation.eagle3_drafter import Eagle3Drafter, KeysAndValues


@contextmanager
def speculating(model: Any, drafter: Eagle3Drafter, depth: int) -> Iterator[Attached]:
    """Drafted chains while the context lasts.

    Args:
        model: the target.
        drafter: made for it.
        depth: tokens in a chain.
    """
    with ExitStack() as changes:
        passes = changes.enter_context(passes_of(model))
        if implementations.has_experts(model):
            # The other kernels read an expert again for each token that goes through it.
            changes.enter_context(implementations.experts(model, "grouped_mm"))
        yield Attached(passes, decoder=ChainDecoder(drafter, depth))


def require_rewinding(model: Any, name: str) -> None:
    """Refuse a model that cannot take a draft back, before anything is read.

    Args:
        model: a causal language model of transformers.
        name: of the method.

    Raises:
        MethodError: its layers are not found where they are tapped, or keep a state that only goes forward.
    """
    try:
        layers_of(model, [0])
    except MethodError as error:
        raise MethodError(
            f"{name} taps the layers of plain language models, and {type(model).__name__} keeps its own elsewhere."
        ) from error
    negotiate(model, {name: ChainDecoder.needs})


class ChainDecoder(Decoder):
    """A chain of drafts, and a verifying pass for each; what is written is the model's own.

    Args:
        drafter: made for the model.
        depth: tokens in a chain.
    """

    needs = frozenset({CacheNeed.CROP})

    def __init__(self, drafter: Eagle3Drafter, depth: int) -> None:
        self._drafter, self._depth = drafter, depth
        self._weights = sum(weights.numel() for weights in drafter.parameters())
        self._drafted: list[int] = []
        self.features = tuple(drafter.taps)

    def steps(self, run: Run, read: Read, first: torch.Tensor) -> Iterator[list[int]]:
        """The drafts of a chain that stand, and a token of the model's own after them."""
        self._drafted = []
        past: KeysAndValues | None = None
        tokens, seen, features = first, read.ids, read.features
        while True:
            follows = torch.cat([seen[:, 1:], tokens[:, -1:]], 1)
            drafts, past = self._draft(follows, features, min(self._depth, run.left), past)
            for _ in range(drafts.shape[1]):
                run.passes.ledger.record_other(Pass("draft", 1, 0, logits=0, weights=self._weights))
            verified = torch.cat([tokens[:, -1:], drafts], 1)
            logits = run.forward(verified, "verify", logits=0)
            features = run.features
            tokens = run.chooser.verified(logits, drafts)
            run.crop(drafts.shape[1] + 1 - tokens.shape[1])
            seen = verified[:, : tokens.shape[1]]  # what the target read in its latest pass, as far as it stands
            self._drafted.append(drafts.shape[1])
            yield tokens.flatten().tolist()

    def figures(self, given: Sequence[int]) -> dict[str, Any]:
        """What came of the drafts.

        `acceptance_lengths` are the tokens that each verifying pass gave (drafted ones that were right, and one of
        the target's own), and `tau` is their mean; None where the prompt's token was all. Tokens beyond the answer's
        end do not count. `drafted` are the tokens that each pass verified, `drafter_weights` how many the drafter
        has.
        """
        return {
            "acceptance_lengths": list(given),
            "tau": sum(given) / len(given) if given else None,
            "drafted": self._drafted[: len(given)],
            "drafter_weights": self._weights,
        }

    def _draft(
        self, follows: torch.Tensor, features: Mapping[int, torch.Tensor], depth: int, past: KeysAndValues | None
    ) -> tuple[torch.Tensor, KeysAndValues]:
        """A chain of tokens, shape (1, depth), and what the drafter keeps of verified positions.

        Args:
            follows: the tokens that follow those whose features the target gave, shape (1, positions).
            features: layer → its input, shape (1, at least as many positions, hidden).
            depth: of the chain.
            past: what the drafter kept of the positions before.
        """
        count = follows.shape[1]
        fused = self._drafter.fuse([features[tap][:, :count] for tap in self._drafter.taps])
        out, verified = self._drafter(follows, fused, past)
        drafts: list[torch.Tensor] = []
        ahead = verified
        for step in range(depth):
            if step:
                out, ahead = self._drafter(drafts[-1], out, ahead)
            out = out[:, -1:]
            drafts.append(self._drafter.target_ids(self._drafter.logits(out).argmax(-1)))
        return torch.cat(drafts, 1), verified
