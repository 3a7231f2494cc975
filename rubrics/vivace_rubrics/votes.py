"""Several votes on one criterion, and the decision they come to."""

from __future__ import annotations

from collections.abc import Sequence

from vivace_rubrics.criteria import Unscored, Verdict


def decision(votes: Sequence[Verdict]) -> Verdict:
    """What more than half of all votes say, unscored ones counted among them; else there is no decision.

    So no verdict rests on fewer votes than it would need if all had been given. Where no vote was given at
    all, for one and the same reason, that is the decision's reason too.
    """
    met = sum(vote.met is True for vote in votes)
    not_met = sum(vote.met is False for vote in votes)
    tally = f"{met} of {len(votes)} votes say met, {not_met} not met."
    if 2 * max(met, not_met) > len(votes):
        return Verdict(met > not_met, tally)
    reasons = {vote.unscored for vote in votes}
    if met == not_met == 0 and len(reasons) == 1 and (reason := next(iter(reasons))) is not None:
        return Verdict(None, votes[0].explanation, reason)
    return Verdict(None, tally, Unscored.NO_MAJORITY)
