"""How each number on the pages is made: in plain words, and as the code that makes it defines it."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from vivace.statistics.paired import LEVEL, POWER
from vivace.statistics.regression import CONFIRM_LEVEL, CONFIRMATIONS, GATE_RATE, WINDOW
from vivace.store.standing import SUFFICIENT_COVERAGE

_FOR_PROGRAMMERS = re.compile(r"^(Args|Raises|Returns|Yields|Attributes):$", re.MULTILINE)


@dataclass(frozen=True)
class Definition:
    """One number.

    Attributes:
        name: as the pages head it.
        words: what it is, in plain words.
        made_by: the code that makes it, as `module:object`.
    """

    name: str
    words: str
    made_by: str

    @property
    def by_the_code(self) -> str:
        """What the code itself says of it: the docstring, without what only its callers need."""
        return _docstring(self.made_by)


@dataclass(frozen=True)
class Chapter:
    """Numbers that belong together."""

    title: str
    about: str
    definitions: tuple[Definition, ...]


@cache
def _docstring(made_by: str) -> str:
    """Read from the source: some of the modules load torch when they are imported, which may not be installed."""
    module, _, name = made_by.partition(":")
    found = find_spec(module)
    assert found is not None and found.origin is not None, f"there is no module {module}"
    node: ast.AST = ast.parse(Path(found.origin).read_text(encoding="utf-8"))
    for part in name.split("."):
        node = next(one for one in _defined(node) if one.name == part)
    assert isinstance(node, ast.FunctionDef | ast.ClassDef)
    text = inspect.cleandoc(ast.get_docstring(node) or "")
    return _FOR_PROGRAMMERS.split(text)[0].strip()


def _defined(node: ast.AST) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    return (one for one in ast.iter_child_nodes(node) if isinstance(one, ast.FunctionDef | ast.ClassDef))


def chapters() -> tuple[Chapter, ...]:
    """Everything that is explained, in the order in which one needs it."""
    return (_CONVERSATIONS, _CERTAINTY, _COMPARISONS, _INSTRUMENTS, _EFFICIENCY, _JOBS)


_CONVERSATIONS = Chapter(
    "Scores of conversations",
    "A system hears a recorded conversation and replies to its last turn. A judge answers one question for each "
    "criterion of that conversation's rubric: met, not met, or unscored with a reason. Whatever went wrong with "
    "a call is unscored, and counts neither for nor against the system.",
    (
        Definition(
            "Average pass rate (APR)",
            "Of the conversations with every criterion scored, the share with every criterion met. Each "
            "conversation counts alike; with several replies to each, it counts by the share of its replies that "
            "pass.",
            "vivace.tracks.dialogue.judging.scores:score_conversations",
        ),
        Definition(
            "Average rubric score (ARS)",
            "Of all criteria that were scored, the share that was met, over all conversations together.",
            "vivace.tracks.dialogue.judging.scores:slice_scores",
        ),
        Definition(
            "Coverage, and where a score could lie",
            "The share of criteria that got a verdict. Below 100 % the board also shows where the score could "
            "lie, from everything unscored failed to everything unscored passed.",
            "vivace.tracks.dialogue.judging.scores:ScoreRow",
        ),
        Definition(
            "Rank",
            "1 + the systems whose interval lies wholly above. Only results over the same data, from the same "
            f"judge with as many votes, over the whole set and with at least {SUFFICIENT_COVERAGE:.0%} of it "
            "scored are ranked together; parts and incomplete results stand apart.",
            "vivace.store.standing:standing_of",
        ),
        Definition(
            "Time and cost",
            "Medians over replies of the time to the first token and to the end. Cost and tokens are sums over "
            "all calls that made and judged the replies, failed ones included; calls without a known price are "
            "counted beside it. What a reply costs with its verdicts is a mean over conversations, and its interval "
            "Student's over them.",
            "vivace.tracks.dialogue.judging.effort:effort_rows",
        ),
    ),
)

_CERTAINTY = Chapter(
    "How sure a score is",
    "Intervals are of 95 %: made again with other conversations of the same kind, 95 of 100 such intervals would "
    "hold the true value. Conversations are what is drawn, so that they count, and not their criteria or replies.",
    (
        Definition(
            "Interval of a pass rate",
            "Wilson's interval. It is never of no width, also when everything passed.",
            "vivace.statistics.intervals:wilson",
        ),
        Definition(
            "Interval of a rubric score",
            "The criteria of one conversation are not independent. They count as as many independent ones as "
            "would spread alike.",
            "vivace.statistics.intervals:clustered_ratio",
        ),
        Definition(
            "Repeats",
            "With several replies to each conversation the spread of a pass rate is split in two: what other "
            "conversations would change, and what another try would.",
            "vivace.statistics.repeats:variance_split",
        ),
        Definition(
            "Votes",
            "With several votes on each criterion their majority counts. Their agreement is the chance that two "
            "of them are alike; κ is what remains of it beyond chance.",
            "vivace.statistics.agreement:vote_agreement",
        ),
        Definition(
            "People's labels",
            "Where people have said of recorded replies what meets a criterion, their majority is held against the "
            "judge; a tie says nothing. Intervals of the agreement are by conversation.",
            "vivace.analysis.human_labels:agreement_with_labels",
        ),
    ),
)

_COMPARISONS = Chapter(
    "Comparisons",
    "Two systems are compared on the conversations that both have, each as its own control. Scores of different "
    "data or judges are never compared silently.",
    (
        Definition(
            "Difference of pass rates",
            "The second system's rate less the first's. The p-value is a fair coin for each conversation that "
            "came out differently (McNemar's exact test).",
            "vivace.statistics.paired:apr_difference",
        ),
        Definition(
            "Difference of rubric scores",
            "The same of criteria, pooled; interval and p-value are by conversation.",
            "vivace.statistics.paired:ars_difference",
        ),
        Definition(
            "p after correction (Holm)",
            "Who looks at twenty differences finds one below 0.05 by chance. All differences of a table are "
            "therefore one family: with Holm's correction the chance of any false alarm among them stays below "
            f"{LEVEL:.0%}.",
            "vivace.statistics.paired:holm",
        ),
        Definition(
            "p after correction (Benjamini–Hochberg)",
            "The milder choice: of the differences that are called real, few are false in expectation.",
            "vivace.statistics.paired:benjamini_hochberg",
        ),
        Definition(
            "Detectable difference",
            f"The true difference that a comparison of this size finds in {POWER:.0%} of cases. A smaller one may "
            "be there and not be seen.",
            "vivace.statistics.paired:Difference",
        ),
        Definition(
            "Hearing and speaking gaps",
            "The same model asked in two ways, through text and through audio, on the same conversations.",
            "vivace.analysis.gaps:gaps",
        ),
        Definition(
            "Scores in parts",
            "The same figures over conversations that are alike: of one axis, of as many turns, of similar "
            "length, of one speaker.",
            "vivace.tracks.dialogue.summaries.parts:slices",
        ),
    ),
)

_INSTRUMENTS = Chapter(
    "Judges and ears",
    "A judge is an instrument with a version. An ear, in a cascade, writes down what was said for a model that "
    "reads.",
    (
        Definition(
            "The judge's fingerprint",
            "Model, address, prompt, parameters and parser: if any of it differs, it is another judge.",
            "vivace_rubrics.judges:JudgeCard",
        ),
        Definition(
            "Word error rate",
            "Words replaced, left out or put in, for each word said. Capitals, punctuation and ways of writing "
            "numbers do not count.",
            "vivace.statistics.word_errors:word_errors",
        ),
        Definition(
            "The judge against people",
            "Verdicts beside people's labels of the same replies: how often they agree, beyond chance, and what "
            "the scores are once the labels correct them.",
            "vivace.statistics.agreement:prediction_powered",
        ),
    ),
)

_EFFICIENCY = Chapter(
    "Efficiency",
    "Each method answers the same prompts as the baseline, in one process, in turns. Bare times depend on the "
    "day; the ratio of neighbouring trials does not.",
    (
        Definition(
            "Ratio of times",
            "The median over pairs of neighbouring trials of the method's time over the baseline's. Below 1 is "
            "faster.",
            "vivace_methods.timing.ratios:paired_ratio",
        ),
        Definition(
            "Comparable quality",
            "A method counts as good as the baseline only where the same samples rule out a loss as large as the "
            "margin. Not shown to be worse is not enough.",
            "vivace.statistics.noninferiority:non_inferiority",
        ),
        Definition(
            "Frontier",
            "The methods that no other one beats: as good for less, or better for as much.",
            "vivace.store.queries.efficiency:frontier",
        ),
        Definition(
            "Floor",
            "The time that the device needs at least for the bytes and operations of a method, from what it did "
            "at its best. A time below it is a fault of the clock, and is named.",
            "vivace_methods.timing.limits:Floor.floor_seconds",
        ),
        Definition(
            "Audits",
            "What speaks against a measurement: prompts that were kept, answers of other lengths, an unmodified "
            "method that differs from the baseline, a process that was changed on the way.",
            "vivace_methods.timing.audits:audit",
        ),
    ),
)

_JOBS = Chapter(
    "Regression jobs",
    "A job runs the same thing every night and says when it has become worse, and of what cause.",
    (
        Definition(
            "A night against its baseline",
            f"Paired with the mean of the last {WINDOW} accepted nights, conversation by conversation.",
            "vivace.statistics.regression:change",
        ),
        Definition(
            "Alert",
            f"What looks worse (at a false discovery rate of {GATE_RATE:.0%}) is run {CONFIRMATIONS} times more; "
            f"only if these fresh runs show it by themselves (p ≤ {CONFIRM_LEVEL}) does anyone hear of it.",
            "vivace.statistics.regression:gate",
        ),
        Definition(
            "Causes",
            "The change is split: what the judge or the machine did to what was frozen, and what remains for the "
            "model.",
            "vivace.statistics.regression:Split",
        ),
        Definition(
            "Steps",
            "Where the level of a long series changes for good.",
            "vivace.statistics.regression:steps",
        ),
    ),
)
