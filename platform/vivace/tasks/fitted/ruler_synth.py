"""RULER's tasks, made here: needles, chains of variables, word lists and questions, in English of any length."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from vivace.errors import UsageError
from vivace.tasks.base import Sample
from vivace.tasks.fitted.base import FittedTask
from vivace.tasks.fitted.chains import write_chain
from vivace.tasks.fitted.needles import Hidden
from vivace.tasks.fitted.questions import write_question
from vivace.tasks.fitted.word_lists import write_common, write_frequent


@dataclass(frozen=True)
class _Subset:
    """How one of RULER's tasks is written and scored."""

    write: Callable[[random.Random, int], Sample]
    most_tokens: int
    metric: str = "contains_all"


_SUBSETS = {
    "niah_single_1": _Subset(Hidden("noise").write, 32),
    "niah_single_2": _Subset(Hidden().write, 32),
    "niah_single_3": _Subset(Hidden(codes="uuid").write, 64),
    "niah_multikey_1": _Subset(Hidden(keys=4).write, 32),
    "niah_multikey_2": _Subset(Hidden("needles").write, 32),
    "niah_multikey_3": _Subset(Hidden("needles", "uuid").write, 64),
    "niah_multivalue": _Subset(Hidden(values=4).write, 96),
    "niah_multiquery": _Subset(Hidden(keys=4, asked=4).write, 96),
    "vt": _Subset(write_chain, 48),
    "cwe": _Subset(write_common, 96),
    "fwe": _Subset(write_frequent, 48),
    "qa_1": _Subset(partial(write_question, hops=1), 32, "contains_any"),
    "qa_2": _Subset(partial(write_question, hops=2), 32, "contains_any"),
}
"""RULER's thirteen tasks by their names there."""


@dataclass(frozen=True)
class RulerSynth(FittedTask):
    """RULER's thirteen tasks (arXiv 2404.06654) in wording and text of Vivace's own, which needs no files.

    Constructions are RULER's (section 3 and appendix B): a needle in noise or essays, four needles of which one, or
    each, is asked for, four values of one key, a haystack of needles, chains of variables, common and frequent words,
    questions over paragraphs. Essays, names and paragraphs are made up here, so that scores are near RULER's and not
    comparable with published ones. Each answer is begun, as RULER's are.

    Attributes:
        subset: niah_single_1, niah_single_2, niah_single_3, niah_multikey_1, niah_multikey_2, niah_multikey_3,
            niah_multivalue, niah_multiquery, vt, cwe, fwe, qa_1 (one paragraph is needed) or qa_2 (two are).
        length: of the prompt and the longest answer together, in tokens of the model that is asked.
    """

    name: ClassVar[str] = "ruler_synth"
    metric: ClassVar[str] = "contains_all"
    most_tokens: ClassVar[int] = 96

    subset: str = "niah_single_2"
    length: int = 4096

    def __post_init__(self) -> None:
        """Take the metric and the limit of the task that is named."""
        if self.subset not in _SUBSETS:
            raise UsageError(f"ruler_synth has no subset '{self.subset}': there are {', '.join(_SUBSETS)}.")
        if self.length < 1:
            raise UsageError(f"The length of ruler_synth must be at least 1, not {self.length}.")
        # Both are the class's elsewhere; here they follow from a setting, and the dataclass is frozen.
        object.__setattr__(self, "metric", _SUBSETS[self.subset].metric)
        object.__setattr__(self, "most_tokens", _SUBSETS[self.subset].most_tokens)

    @property
    def revision(self) -> str:
        """The version of this generator."""
        return "1"

    def length_of(self, index: int) -> int:
        """The same for all."""
        return self.length

    def write(self, chance: random.Random, size: int, index: int) -> Sample:
        """A sample of the subset."""
        return _SUBSETS[self.subset].write(chance, size)
