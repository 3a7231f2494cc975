"""Chains and trees of all sizes under all budgets, each answering the same prompts beside plain decoding."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vivace.errors import UsageError
from vivace.statistics.intervals import wilson
from vivace.statistics.noninferiority import non_inferiority
from vivace.tasks.scores.metrics import score
from vivace.tracks.efficiency.prompts import PlannedPrompt

if TYPE_CHECKING:
    from vivace_methods.arms import Arm, FolderOf
    from vivace_methods.speculation.prospects.answers import Answer
    from vivace_methods.timing.floor import FloorProbe
    from vivace_methods.timing.ratios import Estimate
    from vivace_methods.timing.trials import TimedPrompt

PLAIN = "autoregressive"
LONGEST_CHAIN, LARGEST_TREE = 64, 512
"""Several times what any engine drafts, and the largest tree that was ever reported, with its root."""
TREE_DEPTH = 6
"""Of the longest path of a tree, where it has tokens for that."""


@dataclass(frozen=True, order=True)
class DraftForm:
    """What is drafted, and how many experts a pass that verifies it may read in a layer.

    Attributes:
        tokens: that a pass verifies, the root among them.
        is_tree: whether it branches; a chain of K drafts verifies K + 1 tokens.
        budget: None for no limit.
    """

    tokens: int
    is_tree: bool
    budget: int | None = None

    @property
    def name(self) -> str:
        """For people: `tree of 16, B=8`."""
        drafted = f"tree of {self.tokens}" if self.is_tree else f"chain of {self.tokens - 1}"
        return drafted if self.budget is None else f"{drafted}, B={self.budget}"

    def arm(self, drafter: str) -> str:
        """As `--arms` takes it.

        Args:
            drafter: a folder or `zoo:NAME`.
        """
        drafted = f"depth={min(TREE_DEPTH, self.tokens - 1)},tokens={self.tokens}" if self.is_tree else (
            f"depth={self.tokens - 1}"
        )  # fmt: skip
        if self.budget is None:
            return f"eagle-3({drafted}):{drafter}"
        return f"moe-spec(budget={self.budget},{drafted}):{drafter}"


def forms_of(
    chains: Sequence[int], trees: Sequence[int], budgets: Sequence[int], experts: int, chosen: int
) -> list[DraftForm]:
    """All chains and trees, each without a budget and under all that bind.

    Args:
        chains: drafts of each chain.
        trees: tokens of each tree, its root among them.
        budgets: experts that a pass may read in a layer.
        experts: that a layer has; 0 of a dense model.
        chosen: experts of each token.

    Raises:
        UsageError: nothing is drafted, a budget cannot serve a token, or a dense model is given one.
    """
    if any(each < 1 for each in chains) or any(each < 2 for each in trees) or not (chains or trees):
        raise UsageError("A chain drafts at least 1 token, a tree has at least 2 with its root; give one of either.")
    if any(each > LONGEST_CHAIN for each in chains) or any(each > LARGEST_TREE for each in trees):
        raise UsageError(
            f"A chain drafts at most {LONGEST_CHAIN} tokens, a tree has at most {LARGEST_TREE}: a pass of more takes "
            "the time of reading a prompt."
        )
    if budgets and not experts:
        raise UsageError(
            "The model has no experts, so there is nothing that a budget could bound: leave --budgets out."
        )
    if wrong := [each for each in budgets if not chosen <= each <= experts]:
        raise UsageError(
            f"A budget of {wrong[0]} experts does not fit: each token has {chosen}, and a layer {experts}; take one "
            f"from {chosen} to {experts}."
        )
    shapes = [DraftForm(each + 1, False) for each in sorted(set(chains))] + [
        DraftForm(each, True) for each in sorted(set(trees))
    ]
    bounds = [None, *sorted({each for each in budgets if each < experts}, reverse=True)]
    return [DraftForm(shape.tokens, shape.is_tree, budget) for shape in shapes for budget in bounds]


def usual_budgets(experts: int, chosen: int) -> list[int]:
    """Budgets that are tried where none are named: one, two and four times a token's experts."""
    return [each for each in (chosen, 2 * chosen, 4 * chosen) if each < experts]


def experts_of(model: Any) -> tuple[int, int]:
    """Experts of a layer, and of each token; zeros of a dense model."""
    from vivace_methods.models.anatomy import shapes

    mixtures = [layer for layer in shapes(model.config).layers if layer.experts]
    return (mixtures[0].experts, mixtures[0].active) if mixtures else (0, 0)


Answers = dict[str, dict[str, "Answer"]]
"""Name of the arm → name of the prompt → its answer."""


def swept(
    model: Any,
    forms: Sequence[DraftForm],
    prompts: Sequence[TimedPrompt],
    drafter: str,
    *,
    probe: FloorProbe,
    folder_of: FolderOf,
    plain: Arm | None = None,
    done: Answers | None = None,
    on_answer: Callable[[str, str, Answer], None] = lambda arm, prompt, answer: None,
) -> Answers:
    """Every form's answers, and plain decoding's, prompt by prompt in turns whose order changes.

    Args:
        model: a causal language model of transformers, in evaluation mode.
        forms: to try.
        prompts: to answer.
        drafter: a folder or `zoo:NAME`.
        probe: of the device.
        folder_of: where a drafter lies.
        plain: the arm that decodes plainly; the usual one if None.
        done: answers of an earlier call, which are not asked for again.
        on_answer: told of each new one.

    Raises:
        MethodError: a drafter that does not fit the model, or a model that cannot verify drafts.
    """
    from vivace_methods.registry import parse_arm

    found: Answers = {name: dict(answers) for name, answers in (done or {}).items()}
    arms: dict[str, Arm] = {PLAIN: plain or parse_arm(PLAIN)}
    arms |= {form.name: parse_arm(form.arm(drafter)) for form in forms}
    for name in arms:
        found.setdefault(name, {})
    for name, answer in _in_turns(model, arms, prompts, found, probe, folder_of):
        prompt, its = answer
        found[name][prompt] = its
        on_answer(name, prompt, its)
    return found


def _in_turns(
    model: Any,
    arms: Mapping[str, Arm],
    prompts: Sequence[TimedPrompt],
    found: Answers,
    probe: FloorProbe,
    folder_of: FolderOf,
) -> Iterator[tuple[str, tuple[str, Answer]]]:
    from vivace_methods.speculation.prospects.answers import answering

    waiting = {name: [each for each in prompts if each.name not in found[name]] for name in arms}
    with ExitStack() as contexts:
        ways = {
            name: contexts.enter_context(answering(model, arm, probe.floor, folder_of))
            for name, arm in arms.items()
            if waiting[name]
        }
        for name, answer in ways.items():
            answer(waiting[name][0].request)  # warm-up
        for turn, prompt in enumerate(prompts):
            names = [name for name in ways if prompt in waiting[name]]
            for place in range(len(names)):
                name = names[(turn + place) % len(names)]
                yield name, (prompt.name, ways[name](prompt.request))
            probe.between()


def scores_of(answers: Mapping[str, Answer], prompts: Sequence[PlannedPrompt], tokenizer: Any) -> dict[str, float]:
    """Prompt → score of its answer by the task's own metric, of those that have one."""
    found = {}
    for prompt in prompts:
        if prompt.name in answers and prompt.metric and prompt.sample.references and tokenizer is not None:
            text = tokenizer.decode(answers[prompt.name].tokens, skip_special_tokens=True)
            scored = score(text, prompt.metric, prompt.sample)
            if scored is not None:
                found[prompt.name] = scored
    return found


def agreement(answer: Answer, plain: Answer) -> float:
    """The part of plain decoding's answer that an answer repeats from its beginning on."""
    same = 0
    for one, other in zip(answer.tokens, plain.tokens, strict=False):
        if one != other:
            break
        same += 1
    return same / max(len(plain.tokens), len(answer.tokens))


def share(values: Collection[float]) -> Estimate:
    """The mean of values from 0 to 1, with Wilson's interval, which is too wide where they lie between these."""
    from vivace_methods.timing.ratios import Estimate

    interval = wilson(sum(values), len(values))
    low, high = (None, None) if interval is None else (interval.low, interval.high)
    return Estimate(sum(values) / len(values) if values else 0.0, low, high, len(values))


def lost(
    answers: Mapping[str, Answer],
    plain: Mapping[str, Answer],
    scores: Mapping[str, float],
    plain_scores: Mapping[str, float],
) -> Estimate:
    """How much an arm loses beside plain decoding: of the task's score, or of agreement where there is none.

    The interval is Tango's for paired shares.

    Args:
        answers: of the arm, by prompt.
        plain: of plain decoding, to the same prompts.
        scores: of the arm's answers.
        plain_scores: of plain decoding's.
    """
    from vivace_methods.timing.ratios import Estimate

    if plain_scores:
        pairs = [(score, scores[name]) for name, score in plain_scores.items()]
    else:
        pairs = [(1.0, agreement(answers[name], plain[name])) for name in answers]
    found = non_inferiority([usual for usual, _ in pairs], [its for _, its in pairs], margin=0.5)
    return Estimate(0.0 - found.value, 0.0 - found.high, 0.0 - found.low, found.n)  # without a zero below zero
