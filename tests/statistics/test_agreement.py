"""Agreement against statsmodels and hand-made tables; corrected scores against a truth that only the test knows."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.inter_rater import cohens_kappa, fleiss_kappa

from vivace.statistics.agreement import (
    Confusion,
    PartlyLabelled,
    agreement,
    cohen_kappa,
    confusion,
    constant_judge,
    prediction_powered,
    vote_agreement,
)


def test_kappa_and_its_interval_are_statsmodels_on_300_random_tables() -> None:
    random = np.random.default_rng(1)
    for _ in range(300):
        cells = [int(count) for count in random.integers(1, 200, 4)]
        ours = cohen_kappa(Confusion(*cells))
        theirs = cohens_kappa(np.array(cells).reshape(2, 2))
        assert ours.value == pytest.approx(theirs.kappa, abs=1e-9)
        assert (ours.low, ours.high) == pytest.approx((theirs.kappa_low, theirs.kappa_upp), abs=1e-9)


def test_a_table_worked_by_hand() -> None:
    table = Confusion(both=20, judge_only=5, label_only=10, neither=15)
    found = agreement([table])
    # Cohen's own example: 0.70 observed, 0.50 expected.
    assert found.kappa.value == pytest.approx(0.4)
    assert found.accuracy.value == pytest.approx(0.7)
    assert found.macro_f1.value == pytest.approx((40 / 55 + 30 / 45) / 2)
    constant = constant_judge(table)
    assert constant is not None and constant.answer is True
    assert (constant.accuracy, constant.macro_f1) == pytest.approx((0.6, 0.375))


def test_what_cannot_be_said_is_none() -> None:
    assert cohen_kappa(Confusion(7, 0, 0, 0)).value is None
    assert cohen_kappa(Confusion(0, 0, 0, 0)).value is None
    assert constant_judge(Confusion(0, 0, 0, 0)) is None
    nothing = agreement([])
    assert nothing.kappa.value is nothing.macro_f1.value is nothing.accuracy.value is None
    alike = agreement([Confusion(3, 0, 0, 2)] * 40)
    assert (alike.kappa.value, alike.macro_f1.value, alike.accuracy.value) == (1.0, 1.0, 1.0)
    assert alike.kappa.low is alike.macro_f1.high is alike.accuracy.low is None
    one = agreement([Confusion(5, 1, 1, 5)])
    assert one.accuracy.value == pytest.approx(10 / 12) and one.accuracy.low is None
    assert prediction_powered([]) is None
    assert prediction_powered([PartlyLabelled(1, 2)]) is None
    single = prediction_powered([PartlyLabelled(1, 2), PartlyLabelled(1, 2, 2, 1, 2)])
    assert single is not None and single.low is None


def test_an_answer_that_nobody_gave_does_not_lower_macro_f1() -> None:
    assert agreement([Confusion(9, 1, 0, 0)]).macro_f1.value == pytest.approx((18 / 19 + 0) / 2)
    assert agreement([Confusion(9, 0, 0, 0)]).macro_f1.value == 1.0


def test_pairs_without_an_answer_do_not_count() -> None:
    pairs = [(True, True), (True, False), (False, True), (False, False), (None, True), (True, None), (None, None)]
    assert confusion(pairs) == Confusion(1, 1, 1, 1)


@pytest.mark.parametrize("conversations", [5, 16])
def test_accuracy_of_few_conversations_is_covered(conversations: int) -> None:
    """Plain percentiles of a bootstrap over five conversations hold the truth in 80 of 100 cases."""
    random = np.random.default_rng(conversations)
    held = []
    for right in random.binomial(10, random.beta(6, 2, (300, conversations))):
        found = agreement([Confusion(int(one), 10 - int(one), 0, 0) for one in right], draws=400).accuracy
        held.append(found.low is None or found.high is None or found.low <= 0.75 <= found.high)
    assert np.mean(held) >= 0.935


def test_intervals_are_the_same_every_time_and_wider_where_conversations_err_as_one() -> None:
    alone = [Confusion(1, 0, 0, 0)] * 300 + [Confusion(0, 0, 0, 1)] * 100 + [Confusion(0, 1, 0, 0)] * 100
    together = [Confusion(10, 0, 0, 0)] * 30 + [Confusion(0, 0, 0, 10)] * 10 + [Confusion(0, 10, 0, 0)] * 10
    widths = []
    for conversations in (alone, together):
        found = agreement(conversations)
        assert found == agreement(conversations)
        assert found.kappa.low is not None and found.kappa.high is not None
        widths.append(found.kappa.high - found.kappa.low)
        assert found.kappa_independent == cohen_kappa(Confusion(300, 100, 0, 100))
    assert widths[1] > 2 * widths[0]


def conversations_of(
    random: np.random.Generator, count: int, labelled: int, *, false_met: float, false_not_met: float, whole: bool
) -> list[PartlyLabelled]:
    """Conversations of 1 to 7 criteria with a difficulty each, a judge who errs, and labels on a random part."""
    sizes = random.integers(1, 8, count)
    asked = np.arange(7) < sizes[:, None]
    true = random.random((count, 7)) < random.beta(3, 1, (count, 1))
    judged = np.where(true, random.random((count, 7)) > false_not_met, random.random((count, 7)) < false_met)
    if whole:
        columns = [(judged | ~asked).all(axis=1), np.ones(count), (true | ~asked).all(axis=1)]
    else:
        columns = [(judged & asked).sum(axis=1), sizes, (true & asked).sum(axis=1)]
    rows = np.transpose(columns).astype(int).tolist()
    return [
        PartlyLabelled(judge_met, unit, *((unit, judge_met, met) if place < labelled else ()))
        for place, (judge_met, unit, met) in enumerate(rows)
    ]


@pytest.mark.parametrize("whole", [False, True], ids=["ars", "apr"])
@pytest.mark.parametrize(("count", "labelled", "false_met"), [(452, 60, 0.3), (120, 40, 0.3), (452, 25, 0.02)])
def test_corrected_intervals_cover_the_truth_in_93_of_100_draws(
    whole: bool, count: int, labelled: int, false_met: float
) -> None:
    # The mean over conversations of ease is 3/4; all of s criteria are met with E[ease^s] = 3 / (3 + s).
    truth = float(np.mean([3 / (3 + size) for size in range(1, 8)])) if whole else 0.75
    random = np.random.default_rng(labelled)
    draws = 2_000
    covered = 0
    errors = []
    for _ in range(draws):
        found = prediction_powered(
            conversations_of(
                random, count, labelled, false_met=false_met, false_not_met=0.05, whole=whole
            )
        )  # fmt: skip
        assert found is not None and found.low is not None and found.high is not None
        covered += found.low <= truth <= found.high
        errors.append((found.judged - truth, found.labelled - truth, found.corrected - truth))
    judge, label, corrected = np.transpose(errors)
    assert covered / draws >= 0.93, covered / draws
    assert abs(corrected.mean()) < 0.01
    assert abs(judge.mean()) > 2 * abs(corrected.mean()), "the judge alone is off, or the test shows nothing"
    assert corrected.std() < label.std(), "the judge's verdicts on the rest must tell something"


def test_a_useless_judge_gets_no_weight_and_a_perfect_one_all_of_it() -> None:
    random = np.random.default_rng(5)
    useless = conversations_of(random, 2000, 400, false_met=0.5, false_not_met=0.5, whole=False)
    perfect = conversations_of(random, 2000, 400, false_met=0.0, false_not_met=0.0, whole=False)
    of_useless, of_perfect = prediction_powered(useless), prediction_powered(perfect)
    assert of_useless is not None and of_useless.weight < 0.2
    assert of_useless.corrected == pytest.approx(of_useless.labelled, abs=0.02)
    assert of_perfect is not None and of_perfect.weight > 0.95
    assert of_perfect.corrected == pytest.approx(of_perfect.judged, abs=0.01)


def test_labels_on_everything_give_the_labels_rate_with_about_its_own_interval() -> None:
    everything = conversations_of(
        np.random.default_rng(6), 452, 452, false_met=0.3, false_not_met=0.1, whole=False
    )  # fmt: skip
    found = prediction_powered(everything)
    assert found is not None
    assert found.corrected == found.labelled
    met, labelled = np.array([(c.labelled_met, c.labelled) for c in everything]).T
    spread = stats.sem(met - found.labelled * labelled) / labelled.mean()
    half = stats.t.ppf(0.975, len(everything) - 1) * spread
    assert (found.low, found.high) == pytest.approx((found.labelled - half, found.labelled + half), abs=1e-3)


def test_few_labels_that_all_agree_do_not_make_the_judge_infallible() -> None:
    found = prediction_powered([PartlyLabelled(1, 1, 1, 1, 1)] * 10 + [PartlyLabelled(1, 1)] * 400)
    assert found is not None and found.low is not None
    assert found.corrected == 1.0 and 0.75 < found.low < 0.9


def test_fleiss_kappa_is_statsmodels_on_200_random_tables() -> None:
    random = np.random.default_rng(9)
    for _ in range(200):
        votes, criteria = int(random.integers(2, 8)), int(random.integers(2, 60))
        met = random.binomial(votes, random.beta(0.5, 0.5, criteria))
        found = vote_agreement([[(int(one), votes)] for one in met])
        assert found is not None
        if 0 < met.sum() < votes * criteria:
            expected = fleiss_kappa(np.column_stack([met, votes - met]))
            assert found.kappa == pytest.approx(expected, abs=1e-9)
        else:
            assert found.kappa is None


def test_agreement_of_votes_is_pair_by_pair() -> None:
    """Three votes of which one differs agree in one pair of three; a single vote agrees with nobody."""
    found = vote_agreement([[(3, 3), (2, 3)], [(1, 1)], [(0, 2)]])
    assert found is not None
    assert found.agreement == pytest.approx((1 + 1 / 3 + 1) / 3)
    assert (found.alike, found.pairs, found.criteria) == (3 + 1 + 1, 7, 3)
    assert vote_agreement([[(1, 1)], []]) is None
