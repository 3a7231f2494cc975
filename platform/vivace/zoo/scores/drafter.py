"""The scores of the zoo's drafters: tokens that a verifying pass of a target gives, and how many it could give."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from vivace.tasks.base import Sample
from vivace.tasks.generated.needles import Needles
from vivace.zoo.scores.base import ASKED, SEED, ZooScore, loaded, ratio
from vivace.zoo.scores.moe import MOST_TOKENS, asked

DEPTH = 5
"""Tokens that are drafted before each verification."""
NEEDLES = {
    "256 tokens": Needles(256),
    "512 tokens": Needles(512),
    "1024 tokens": Needles(1024),
    "two hops at 512": Needles(512, hops=2),
}
"""What the retrieval model is asked, in equal parts."""

Asked = Iterable[tuple[str, Sample]]
"""Samples, each with the name of the slice it belongs to."""


def score_moe_drafter(folder: Path, needed: dict[str, Path]) -> Iterator[ZooScore]:
    """Over all domains of the mixture of experts, and by domain."""
    return _scores("moe-drafter", folder, needed["moe"], asked(ASKED), MOST_TOKENS)


def score_dense_drafter(folder: Path, needed: dict[str, Path]) -> Iterator[ZooScore]:
    """Over all domains of the dense language model, and by domain."""
    return _scores("dense-drafter", folder, needed["dense"], asked(ASKED), MOST_TOKENS)


def score_retrieval_drafter(folder: Path, needed: dict[str, Path]) -> Iterator[ZooScore]:
    """Over needles at all lengths, and by length."""
    each = ASKED // len(NEEDLES)
    needles = [(name, sample) for name, task in NEEDLES.items() for sample in task.samples(each, SEED)]
    return _scores("retrieval-drafter", folder, needed["retrieval"], needles, Needles.most_tokens)


def _scores(name: str, folder: Path, target: Path, prompts: Asked, most_tokens: int) -> Iterator[ZooScore]:
    """τ and the highest τ that the same answers allow, each over all and by slice.

    The prefill gives an answer's first token and no pass gives more than `DEPTH` + 1 of the others: short answers
    end before a pass can give as many.
    """
    import torch

    from vivace_methods.decoding.joined import applied
    from vivace_methods.protocol import Request
    from vivace_methods.speculation.eagle3 import Eagle3

    model, tokenizer = loaded(target)
    method = Eagle3(depth=DEPTH)
    lengths: dict[str, list[list[int]]] = {}
    with applied(method, model, method.read_fitted(folder, model)) as generator:
        for slice, sample in prompts:
            request = Request(
                torch.tensor([tokenizer(sample.prompt)["input_ids"]]),
                most_tokens,
                frozenset({tokenizer.eos_token_id}),
            )
            figures = generator.generate(request, lambda step: None).figures
            lengths.setdefault(slice, []).append(figures["acceptance_lengths"])
    whole = {"": [each for those in lengths.values() for each in those], **lengths}
    for slice, those in whole.items():
        yield ratio(name, [(sum(each), len(each)) for each in those], metric="tau", slice=slice)
    for slice, those in whole.items():
        fewest = [(sum(each), -(-sum(each) // (DEPTH + 1))) for each in those]
        yield ratio(name, fewest, metric="highest_tau", slice=slice)
