"""Two judgings conversation by conversation: what paired differences are computed from."""

from __future__ import annotations

from collections.abc import Sequence

from vivace.statistics.paired import Pair
from vivace.store.verdicts import JudgedConversation
from vivace.tracks.dialogue.judging.scores import Tallies


def paired(a: Sequence[JudgedConversation], b: Sequence[JudgedConversation]) -> list[Pair]:
    """The conversations that both judgings planned, in the order of their ids."""
    first, second = ({one.id: one for one in side} for side in (a, b))
    return [_pair(first[key], second[key]) for key in sorted(first.keys() & second.keys())]


def _pair(a: JudgedConversation, b: JudgedConversation) -> Pair:
    met_a, met_b = _mean_met(a), _mean_met(b)
    common = sorted(met_a.keys() & met_b.keys())
    one, other = Tallies.of(a), Tallies.of(b)
    once = len(a.replies) == len(b.replies) == 1
    whole = one.whole > 0 and other.whole > 0 and a.replies[0].keys() == b.replies[0].keys()
    return Pair(
        conversation=a.id,
        axis=a.axis,
        whole=whole,
        scored=len(common),
        met_a=sum(met_a[number] for number in common),
        met_b=sum(met_b[number] for number in common),
        rate_a=None if once or not whole else one.passes / one.whole,
        rate_b=None if once or not whole else other.passes / other.whole,
    )


def _mean_met(conversation: JudgedConversation) -> dict[int, float]:
    """Place in the rubric → the share of replies that meet it, of those where it is scored at all."""
    rates = {}
    for number in conversation.replies[0]:
        scored = [met for reply in conversation.replies if (met := reply[number]) is not None]
        if scored:
            rates[number] = sum(scored) / len(scored)
    return rates
