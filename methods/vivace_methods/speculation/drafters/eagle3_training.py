"""How EAGLE-3's drafter learns: unrolled for some steps, each going on from its own output, as when it drafts."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vivace_methods.speculation.drafters.eagle3 import Eagle3Drafter, KeysAndValues


def unrolled_losses(
    drafter: Eagle3Drafter,
    tokens: torch.Tensor,
    tapped: Sequence[torch.Tensor],
    target_logits: torch.Tensor,
    counted: torch.Tensor,
    unrolled: int,
) -> list[torch.Tensor]:
    """The loss of each unrolled step: cross-entropy of the drafter against the target over what it drafts.

    Step j starts from the output of step j − 1 and is given the right tokens, one further along. It sees what the
    first step wrote for earlier positions, and what steps 1 to j wrote for its own.

    Source: arXiv 2503.01840, section 3.2 ("training-time test"); there is no loss on features.

    Args:
        drafter: to train.
        tokens: ids, shape (rows, positions).
        tapped: inputs of the target's tapped layers, each of shape (rows, positions, hidden).
        target_logits: of the target, over the tokens that can be drafted, shape (rows, positions, draft vocabulary).
        counted: whether the target's prediction at a position counts, shape (rows, positions).
        unrolled: number of steps.

    Returns:
        A loss for each step, in order.

    Raises:
        ValueError: no position counts.
    """
    if not counted.any():
        raise ValueError("No position counts, so that there is nothing to learn from.")
    length = tokens.shape[1]
    everywhere = torch.arange(length, device=tokens.device)
    # No position takes anything but keys and values from those before it, and those as the first step wrote them.
    begin = max(0, int(everywhere[counted.any(0)].min()) - unrolled)
    features = drafter.fuse(tapped)
    written: list[KeysAndValues] = []
    losses = []
    for step in range(unrolled):
        embedded = drafter.embed(_further(tokens, step + 1))
        if step:
            embedded = embedded[:, begin:]
        wide, residual = drafter.midlayer.wide(embedded, features)
        positions = everywhere[length - wide.shape[1] :] + step
        queries, new = drafter.midlayer.self_attn.project(wide, drafter.turns(positions[None]))
        written.append(_repeated(new, drafter.midlayer.self_attn.groups))
        if not step:
            queries, residual = queries[:, :, begin:], residual[:, begin:]
        features = drafter.finish(residual, _attend(queries, written))
        kept = _further(counted, step + 1) & (everywhere < length - step - 1)
        logs = drafter.logits(features[kept[:, begin:]]).log_softmax(-1)
        wanted = _further(target_logits, step + 1)[kept].softmax(-1)
        losses.append(-(wanted * logs).sum(-1).mean())
    return losses


def _further(values: torch.Tensor, count: int) -> torch.Tensor:
    """Values of later positions in the place of earlier ones; what comes round at the end is not counted."""
    return values.roll(-count, dims=1)


def _repeated(new: KeysAndValues, groups: int) -> KeysAndValues:
    return KeysAndValues(*(part.repeat_interleave(groups, 1) for part in new))


def _attend(queries: torch.Tensor, written: Sequence[KeysAndValues]) -> torch.Tensor:
    """Causal attention of the last positions over what the first step wrote, and over later steps' own positions."""
    scale = queries.shape[-1] ** -0.5
    first, later = written[0], written[1:]
    asking, length = queries.shape[2], first.keys.shape[2]
    ahead = torch.ones(asking, length, dtype=torch.bool, device=queries.device).triu(length - asking + 1)
    scores = (queries @ first.keys.transpose(-1, -2)).masked_fill(ahead, float("-inf"))
    own = [(queries * step.keys).sum(-1, keepdim=True) for step in later]
    shares = (torch.cat([scores, *own], -1) * scale).softmax(-1)
    attended = shares[..., :length] @ first.values
    for number, step in enumerate(later):
        attended = attended + shares[..., length + number, None] * step.values
    return attended
