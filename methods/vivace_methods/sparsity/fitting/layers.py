"""Fitting one linear layer on the inputs that it meets: its threshold, its low-rank part, and the error left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from vivace_kernels.sparsity.packed import Factors
from vivace_methods.protocol import MethodError
from vivace_methods.sparsity.applying.channel_limits import ALWAYS, channel_limits, channel_scale, residual
from vivace_methods.sparsity.fitting.budget import WeightBudget
from vivace_methods.sparsity.fitting.criteria import Criterion, FactorFit
from vivace_methods.sparsity.fitting.recipe import ModuleRecipe

LARGE = 1024
"""Rows or columns from which on decompositions are made by random projection, where the rank is small."""
OVERSAMPLED, ITERATIONS = 16, 4
RIDGE = 1e-3
"""Weight of the plain weights beside the dropped inputs' outputs: directions never met so far count a bit."""


@dataclass(frozen=True)
class Fitted:
    """One layer, fitted.

    Attributes:
        recipe: what is done to it.
        factors: of its low-rank part; None without one.
    """

    recipe: ModuleRecipe
    factors: Factors | None


class LayerFit:
    """One linear layer with inputs that it met, of which one part is fitted on and the other measures the error.

    Args:
        name: of the layer.
        weight: shape (outputs, inputs).
        texts: what it read of each text, shape (tokens, inputs). Every other text measures the error, for tokens of
            one text are too much alike; of a single text, its second half.

    Raises:
        MethodError: an input is no finite number.
    """

    def __init__(self, name: str, weight: torch.Tensor, texts: Sequence[torch.Tensor]) -> None:
        if not all(bool(torch.isfinite(text).all()) for text in texts):
            raise MethodError(
                f"On the calibration text, {name} reads numbers that are not finite: thresholds would mean nothing. "
                "Load the model as bfloat16 or float32, or calibrate on other text."
            )
        self.name, self.weight = name, weight.detach()
        self._fit, self._check = (part.float() for part in halves(texts))

    def fit(
        self, budget: WeightBudget, criterion: Criterion, factor_fit: FactorFit, sparsity: float, ratio: float
    ) -> Fitted:
        """Fit it to a budget.

        Args:
            budget: channels and rank.
            criterion: by what channels are judged.
            factor_fit: what the low-rank part is fitted to.
            sparsity: as the recipe will say.
            ratio: likewise.
        """
        factors = self._factors(budget, criterion, factor_fit)
        recipe = ModuleRecipe(sparsity, ratio, budget.rank, criterion, self._threshold(budget, criterion, factors))
        error = self.output_error(recipe, factors)
        return Fitted(ModuleRecipe(sparsity, ratio, budget.rank, criterion, recipe.threshold, error), factors)

    def output_error(self, recipe: ModuleRecipe, factors: Factors | None) -> float:
        """The mean square of what the output loses, over that of the output, on tokens that nothing was fitted on."""
        dropped = self._dropped(self._check, channel_limits(self.name, recipe, self.weight, factors))
        lost = dropped @ residual(self.weight, factors).T
        return float(lost.square().sum() / self._exact.square().sum().clamp_min(1e-30))

    @cached_property
    def _exact(self) -> torch.Tensor:
        return self._check @ self.weight.float().T

    @staticmethod
    def _dropped(inputs: torch.Tensor, limits: torch.Tensor) -> torch.Tensor:
        return torch.where(inputs.abs() <= limits, inputs, 0.0)

    def _threshold(self, budget: WeightBudget, criterion: Criterion, factors: Factors | None) -> float:
        if criterion == "random":
            return 1 - budget.kept
        if criterion == "none":
            return 0.0
        scores = self._fit.abs() * channel_scale(criterion, self.weight, factors)
        return threshold_of(scores, budget.kept)

    def _factors(self, budget: WeightBudget, criterion: Criterion, factor_fit: FactorFit) -> Factors | None:
        if budget.rank == 0:
            return None
        if factor_fit == "svd":
            return self._truncated(budget.rank)
        # What is dropped depends on the factors by the norms of W - W_r; those of W are where that begins.
        found: Factors | None = None
        for _ in range(2):
            threshold = self._threshold(budget, criterion, found)
            recipe = ModuleRecipe(0.0, 0.0, budget.rank, criterion, threshold)
            limits = channel_limits(self.name, recipe, self.weight, found)
            found = fitted_factors(self.weight, self._dropped(self._fit, limits), budget.rank)
        return found

    def _truncated(self, rank: int) -> Factors:
        weight = self.weight.float()
        if _is_far_below(rank, weight):
            left, values, right = _leading(weight, rank)
            return Factors(left[:, :rank] * values[:rank], right[:rank])
        directions = self._directions[:, :rank]
        if weight.shape[0] <= weight.shape[1]:
            return Factors(directions.float(), (directions.T @ weight.double()).float())
        return Factors((weight.double() @ directions).float(), directions.T.float())

    @cached_property
    def _directions(self) -> torch.Tensor:
        """The singular vectors of the weights on their smaller side, the main ones first.

        Those of W Wᵀ are the same, for a fraction of the time. In double precision its squares spoil only directions
        in which the weights do next to nothing.
        """
        whole = self.weight.double()
        products = whole @ whole.T if whole.shape[0] <= whole.shape[1] else whole.T @ whole
        return torch.linalg.eigh(products).eigenvectors.flip(1)


def _is_far_below(rank: int, matrix: torch.Tensor) -> bool:
    """Whether a few leading directions of a large matrix are wanted, for which a whole decomposition is a waste."""
    smaller: int = min(matrix.shape)
    return smaller >= LARGE and 4 * rank < smaller


def _leading(matrix: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The leading part of a singular value decomposition by random projection, the same each time."""
    with torch.random.fork_rng(devices=[matrix.device] if matrix.device.type == "cuda" else []):
        torch.manual_seed(0)
        left, values, right = torch.svd_lowrank(matrix, q=rank + OVERSAMPLED, niter=ITERATIONS)
    return left, values, right.T


def halves(texts: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """What is fitted on, and what measures the error: every other text, or the two halves of a single one."""
    if len(texts) == 1:
        half = len(texts[0]) // 2
        return texts[0][:half], texts[0][half:]
    return torch.cat(list(texts[::2])), torch.cat(list(texts[1::2]))


def threshold_of(scores: torch.Tensor, kept: float) -> float:
    """The score above which a share of all scores lies.

    Args:
        scores: not negative.
        kept: the share, in [0, 1].
    """
    dropped = round(scores.numel() * (1 - kept))
    if dropped == 0:
        return ALWAYS
    return float(scores.flatten().kthvalue(dropped).values)


def fitted_factors(weight: torch.Tensor, dropped: torch.Tensor, rank: int) -> Factors:
    """The low-rank part that gives the outputs of dropped inputs best, in the mean square.

    Of all matrices of that rank, U Uᵀ W is the best, with U the main directions of those outputs.

    Args:
        weight: shape (outputs, inputs).
        dropped: inputs in which what is kept is zero, shape (tokens, inputs).
        rank: at most the smaller side of the weights.
    """
    if _is_far_below(rank, weight):
        return _leading_factors(weight.float(), dropped.float(), rank)
    whole = weight.double()
    outputs = dropped.double() @ whole.T
    spread = outputs.T @ outputs / max(1, dropped.shape[0])
    plain = whole @ whole.T
    plain *= RIDGE * spread.trace() / plain.trace().clamp_min(1e-30)
    if not spread.trace():  # nothing was dropped
        plain = whole @ whole.T
    directions = torch.linalg.eigh(spread + plain).eigenvectors.flip(1)[:, :rank]
    return Factors(directions.float(), (directions.T @ whole).float())


def _leading_factors(weight: torch.Tensor, dropped: torch.Tensor, rank: int) -> Factors:
    """The same, with the directions found by random projection."""
    outputs = dropped @ weight.T / max(1, dropped.shape[0]) ** 0.5
    share = float(outputs.square().sum() / weight.square().sum().clamp_min(1e-30)) or 1.0
    _, _, directions = _leading(torch.cat((outputs, weight.T * (RIDGE * share) ** 0.5)), rank)
    up = directions[:rank].T
    return Factors(up, up.T @ weight)
