"""An EAGLE-3 drafter learns what a model says on texts of its own, in a vocabulary of the commonest tokens."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vivace.zoo.training.rows import Optimisers
from vivace_methods.speculation.drafters.eagle3 import new_configuration, usual_taps

if TYPE_CHECKING:
    import torch

    from vivace_methods.speculation.drafters.eagle3 import Eagle3Drafter

UNROLLED = 4
"""Steps that the drafter goes on from its own output."""
ROOM = 2048
"""Tokens of a step, padding among them."""


@dataclass(frozen=True)
class Text:
    """A prompt with an answer of the model's own.

    Attributes:
        prompt: token ids.
        answer: token ids.
    """

    prompt: tuple[int, ...]
    answer: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


def draft_vocabulary(texts: Iterable[Text], size: int, known: int) -> list[int]:
    """The tokens that a drafter may draft, in ascending order: those that the answers have most often.

    Where the answers have fewer, those of the prompts follow, and then the first of the vocabulary.

    Args:
        texts: to count in.
        size: of the vocabulary.
        known: tokens of the model.
    """
    answered: Counter[int] = Counter()
    asked: Counter[int] = Counter()
    for text in texts:
        answered.update(text.answer)
        asked.update(text.prompt)
    ordered = dict.fromkeys(
        [*(token for token, _ in answered.most_common()), *(token for token, _ in asked.most_common()), *range(known)]
    )
    return sorted(list(ordered)[:size])


def new_drafter(model: Any, drafted: Sequence[int]) -> Eagle3Drafter:
    """A drafter that has learnt nothing yet; it begins with the model's own head.

    Args:
        model: whose drafter it is to be.
        drafted: ids of the model's tokens that it may draft, in ascending order.
    """
    import torch

    from vivace_methods.speculation.drafters.eagle3 import Eagle3Drafter

    target = model.config.get_text_config(decoder=True)
    configuration = new_configuration(
        target,
        intermediate=target.intermediate_size,
        taps=usual_taps(target.num_hidden_layers),
        drafted=len(drafted),
    )
    drafter = Eagle3Drafter(configuration, model.get_input_embeddings())
    ids = torch.tensor(drafted)
    if len(drafted) < target.vocab_size:
        drafter.d2t.copy_(ids - torch.arange(len(drafted)))
        drafter.t2d.index_fill_(0, ids, True)
    with torch.no_grad():
        drafter.lm_head.weight.copy_(model.get_output_embeddings().weight[ids.to(model.device)])
    drafter.to(model.device).train()
    return drafter


def learn(
    model: Any, drafter: Eagle3Drafter, texts: Sequence[Text], *, epochs: int, seed: int, on_step: Callable[..., None]
) -> float:
    """Train a drafter, and give the loss of its last steps.

    Positions count whose next token is the answer's and whose likeliest token can be drafted; there the drafter
    learns the model's distribution over the draft vocabulary, as in EAGLE-3's own training (arXiv 2503.01840).

    Args:
        model: its target, a causal language model of transformers in evaluation mode.
        drafter: to train.
        texts: to learn from.
        epochs: times that each text is read.
        seed: of the order.
        on_step: told of the steps that are done, of the loss, and of all steps.
    """
    import torch

    from vivace_methods.models.layer_inputs import layers_of, tapping
    from vivace_methods.speculation.drafters.eagle3_training import unrolled_losses

    batches = _batches(texts)
    order = random.Random(seed)
    steps = [batch for _ in range(epochs) for batch in order.sample(batches, len(batches))]
    named = drafter.named_parameters()
    matrices = [weights for name, weights in named if weights.ndim == 2 and not name.startswith("lm_head")]
    optimisers = Optimisers(drafter, matrices, steps=len(steps), muon_rate=0.02, adam_rate=1e-3)
    drafted = drafter.target_ids(torch.arange(drafter.config.draft_vocab_size, device=model.device))
    losses = []
    with tapping(layers_of(model, drafter.taps)) as tapped:
        for number, batch in enumerate(steps):
            ids, answers = (each.to(model.device) for each in _rows(batch))
            with torch.no_grad():
                logits = model(ids, use_cache=False).logits
                counted = answers.roll(-1, dims=1) & torch.isin(logits.argmax(-1), drafted)
                logits = logits[..., drafted].float()
            if counted[:, :-1].any():
                inputs = [tapped[tap] for tap in drafter.taps]
                own = unrolled_losses(drafter, ids, inputs, logits, counted, UNROLLED)
                # An answer that is shorter than a step goes on has nothing to learn from there.
                losses.append(optimisers.step(number, torch.stack([each for each in own if each.isfinite()]).mean()))
            on_step(number + 1, losses[-1] if losses else float("nan"), len(steps))
    drafter.eval()
    last = losses[-max(1, len(batches) // 4) :]
    return sum(last) / len(last) if last else float("nan")


def _batches(texts: Sequence[Text]) -> list[list[Text]]:
    """Texts of like length together, as many as there is room for."""
    batches: list[list[Text]] = []
    for text in sorted(texts, key=len):
        if batches and len(text) * (len(batches[-1]) + 1) <= ROOM:
            batches[-1].append(text)
        else:
            batches.append([text])
    return batches


def _rows(batch: Sequence[Text]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids, and whether each belongs to an answer; padded behind, where no token before it looks."""
    import torch

    longest = max(map(len, batch))
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    answers = torch.zeros(len(batch), longest, dtype=torch.bool)
    for row, text in enumerate(batch):
        ids[row, : len(text)] = torch.tensor([*text.prompt, *text.answer])
        answers[row, len(text.prompt) : len(text)] = True
    return ids, answers
