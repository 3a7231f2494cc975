"""The decoder of all that guesses ahead: drafts are verified by one pass of the model, and what stands is kept."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch

from vivace_methods.cache_needs import CHAINS, TREES
from vivace_methods.decoding.caches import negotiate
from vivace_methods.decoding.generation import Generation
from vivace_methods.decoding.trees import Tree
from vivace_methods.errors import MethodError
from vivace_methods.models import implementations
from vivace_methods.models.layer_inputs import layers_of
from vivace_methods.models.passes import passes_of
from vivace_methods.protocol import Attached, Decoder, Read
from vivace_methods.speculation.drafters.base import Drafter, Drafting
from vivace_methods.speculation.pacing.base import Pace
from vivace_methods.speculation.pass_figures import pass_figures


@contextmanager
def speculating(model: Any, decoder: SpeculativeDecoder) -> Iterator[Attached]:
    """Drafts verified by a model while the context lasts.

    Args:
        model: the target.
        decoder: with a drafter made for it.
    """
    with ExitStack() as changes:
        passes = changes.enter_context(passes_of(model))
        if implementations.has_experts(model):
            # The other kernels read an expert again for each token that goes through it.
            on_gpu = model.device.type == "cuda"
            kernels = implementations.OWN_EXPERTS if on_gpu else "grouped_mm"
            changes.enter_context(implementations.experts(model, kernels))
        changes.enter_context(implementations.products(model))
        changes.enter_context(decoder.drafter.ready())
        figures = partial(pass_figures, model)
        yield Attached(passes, decoder=decoder, prepare=decoder.pace.prepare, figures=figures)


def require_verifying(model: Any, name: str, *, trees: bool) -> None:
    """Refuse a model that cannot verify drafts, before anything is read.

    Args:
        model: a causal language model of transformers.
        name: of the method.
        trees: whether drafts are trees.

    Raises:
        MethodError: its layers are not found where they are tapped, keep a state that only goes forward, or run with
            an attention that takes no mask for trees.
    """
    try:
        layers_of(model, [0])
    except MethodError as error:
        raise MethodError(
            f"{name} taps the layers of plain language models, and {type(model).__name__} keeps its own elsewhere."
        ) from error
    negotiate(model, {name: TREES if trees else CHAINS})


class SpeculativeDecoder(Decoder):
    """A tree of drafts, and a verifying pass for each; what is written is the model's own.

    Args:
        model: the target.
        drafter: made for the model.
        depth: that its trees may have at most.
        trees: whether its drafts may branch.
        pace: how far to draft.
    """

    def __init__(self, model: Any, drafter: Drafter, depth: int, *, trees: bool, pace: Pace | None = None) -> None:
        self._held = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
        self.drafter, self.pace, self._depth = drafter, pace or Pace(), depth
        self._drafted: list[int] = []
        self.needs = TREES if trees else CHAINS
        self.features = drafter.taps

    def steps(self, run: Generation, read: Read, first: torch.Tensor) -> Iterator[list[int]]:
        """The drafts of a tree that stand, and a token of the model's own after them."""
        self._drafted = []
        self._require_room(run)
        self.pace.begin()
        drafting = self.drafter.start(run, read)
        root = first
        while True:
            root = yield from self._step(run, drafting, root)

    def _step(
        self, run: Generation, drafting: Drafting, root: torch.Tensor
    ) -> Generator[list[int], None, torch.Tensor]:
        """One tree: its tokens that stand, and the latest of them as the root of the next."""
        most = min(self._depth, run.left - 1)  # the token of the model's own is the last that may be written
        depth = self.pace.depth(most) if most else 0
        tree = self.pace.cut(drafting.draft(root, depth)) if depth else Tree.chain(root)
        stands = run.chooser.verified(run.forward(tree.tokens, "verify", tree=tree, logits=0), tree)
        nodes = list(stands.nodes)
        run.keep(len(tree), nodes)
        drafting.stands(tree.tokens[:, nodes], {tap: inputs[:, nodes] for tap, inputs in run.features.items()})
        self.pace.verified(depth, len(nodes) - 1)
        self._drafted.append(len(tree) - 1)
        yield stands.tokens.flatten().tolist()
        return stands.tokens[:, -1:]

    def _require_room(self, run: Generation) -> None:
        needed = run.request.prompt.shape[1] + run.request.most_tokens
        if self._held is not None and needed > self._held:
            raise MethodError(
                f"Prompt and answer take up to {needed} positions, and the model holds {self._held}: drafts would "
                "reach beyond them. Take a shorter prompt, or ask for fewer tokens."
            )

    def figures(self, given: Sequence[int]) -> dict[str, Any]:
        """What came of the drafts.

        `acceptance_lengths` are the tokens that each verifying pass gave (drafted ones that were right, and one of
        the target's own), and `tau` is their mean; None where the prompt's token was all. Tokens beyond the answer's
        end do not count. `drafted` are the drafts that each pass verified, `drafter` names the checkpoint that made
        them, `drafter_weights` are those that it reads in a pass, and `accepted_1` and so on the share of passes in
        which so many drafts and more stood.
        """
        return {
            "acceptance_lengths": list(given),
            "tau": sum(given) / len(given) if given else None,
            "drafted": self._drafted[: len(given)],
            "drafter": self.drafter.title,
            "drafter_weights": self.drafter.weights,
            **{f"accepted_{place}": _share_above(place, given) for place in range(1, self._depth + 1) if given},
        }


def _share_above(count: int, given: Sequence[int]) -> float:
    return sum(each > count for each in given) / len(given)
