"""Is the mean of paired differences other than 0? By changing their signs, which no form of spread can mislead."""

from __future__ import annotations

from collections.abc import Sequence

RESAMPLES = 99_999
"""Signs that are drawn where all of them are too many to go through."""
_SEED = 0


def sign_flip_p_value(differences: Sequence[float]) -> float | None:
    """The two-sided p-value of the paired permutation test (Fisher 1935, The Design of Experiments, section 21).

    Where both systems are alike, each difference could as well have the other sign. All signs are gone through where
    there are at most 99,999 of them, else so many are drawn, the same ones each time.

    Args:
        differences: of the second system less the first, one for each sample; None comes of none.
    """
    if not differences:
        return None
    import numpy as np
    from scipy.stats import permutation_test

    telling = np.array([one for one in differences if one != 0])  # the sign of 0 changes nothing
    if telling.size < 2:
        return 1.0
    found = permutation_test(
        (telling,), np.sum, permutation_type="samples", vectorized=True, n_resamples=RESAMPLES,
        rng=np.random.default_rng(_SEED), alternative="two-sided",
    )  # fmt: skip
    return min(1.0, float(found.pvalue))
