"""The answer-informed oracle: tokens go on that the full model's own answer attends to: what rankings are held to."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from vivace_methods.prefill.pruned import PrunedPrefill
from vivace_methods.protocol import MethodError

if TYPE_CHECKING:
    import torch

    from vivace_methods.diagnosis import Diagnosis, Evidence
    from vivace_methods.prefill.parts.pruning import Pruning
    from vivace_methods.prefill.rankers.answer import AnswerRanker
    from vivace_methods.protocol import Method, Request

ANSWERS_FILE = "answers.jsonl"
LONGEST_ANSWERS = 2**29
"""Bytes of such a file."""


@dataclass(frozen=True)
class Oracle(PrunedPrefill):
    """The prompt is read whole and answered first; then it is read again with what that answer attends to.

    Source: McDanel et al., arXiv 2602.16054, section 3: the mean over the answer's tokens of the highest attention in
    any layer and head, of attention among the prompt's tokens alone. It is what a ranking could be, at this plan, not
    what reading can cost. With answers fitted (`oracle:FOLDER`, whose `answers.jsonl` has a line
    {"prompt": [ids], "answer": [ids]} for each prompt) it attends along these.

    Attributes:
        layer: behind which the prompt is pruned, from 0; None for the one at half depth, rounded down.
        window: last tokens of the prompt, which always go on.
        kernel: neighbours over which attention is averaged, an odd number.
        pool: whether each head's attention is averaged with its neighbours `first`, as the authors' code has it, or
            the result in the end (`last`), as the paper's algorithm is told.
        most: tokens of the answer at most.
        kv: which keys and values stay of what a layer has read: `shared` keeps in all layers the tokens that go on,
            as in the paper, `full` everything.
        kv_from: the first layer of which less is kept; those before it keep everything.
    """

    name: ClassVar[str] = "oracle"
    paper: ClassVar[str] = "CLAA: Cross-Layer Attention Aggregation for Accelerating LLM Prefill, arXiv 2602.16054"
    fitted_files: ClassVar[tuple[str, ...]] = (ANSWERS_FILE,)

    layer: int | None = None
    window: int = 8
    kernel: int = 7
    pool: Literal["first", "last"] = "first"
    most: int = 256
    kv: Literal["shared", "full"] = "shared"
    kv_from: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_least(1, "most")
        self.require_least(0, "window", "kv_from")
        self.require_odd("kernel")

    def _ranker(self, fitted: Any = None) -> AnswerRanker:
        from vivace_methods.prefill.parts.registry import ranker

        made: Any = ranker("answer", self.window, self.kernel, self.pool, self.most, fitted)
        return made  # type: ignore[no-any-return]

    def diagnose(
        self, model: Any, request: Request, evidence: Evidence, answer: Sequence[int]
    ) -> Iterator[Diagnosis]:
        """Beside what was kept, every ranking of the other methods held against the model's own answer."""
        from vivace_methods.prefill.ranking_diagnosis import diagnosed

        yield from super().diagnose(model, request, evidence, answer)
        yield from diagnosed(model, request, self._ranker(), self.keep)

    def diagnose_drafts(
        self, model: Any, request: Request, drafts: Mapping[str, tuple[Method, Callable[[], Any]]]
    ) -> Iterator[Diagnosis]:
        """What drafts go by, held against the model's own answer."""
        from vivace_methods.prefill.ranking_diagnosis import drafts_diagnosed

        yield from drafts_diagnosed(model, request, self._ranker(), self.keep, drafts)

    def check_fitted(self, folder: Path, configuration: Any = None) -> None:
        """See that the answers can be read, and that the model knows their tokens."""
        read_answers(folder / ANSWERS_FILE, configuration)

    def read_fitted(self, folder: Path, model: Any) -> Answers:
        """The answers in a folder."""
        return read_answers(folder / ANSWERS_FILE, model.config)

    def pruning(self, layers: int, fitted: Any = None) -> Pruning:
        """What the answer attends to, the best tokens, once at a layer, and one set for all layers."""
        from vivace_methods.prefill.parts.plans import layer_of
        from vivace_methods.prefill.parts.pruning import Pruning
        from vivace_methods.prefill.parts.registry import plan, policy, selector

        once = plan("at-layer", layer_of(self.layer, layers, self.name), self.keep)
        kept = policy(self.kv, self.keep, self.kv_from)
        return Pruning(self._ranker(fitted), selector("top-tokens"), once, kept)


@dataclass(frozen=True)
class Answers:
    """Answers that are given to the oracle in place of the model's own.

    Attributes:
        by_prompt: token ids of a prompt → those of its answer.
    """

    by_prompt: Mapping[tuple[int, ...], tuple[int, ...]]

    def __call__(self, ids: torch.Tensor | None) -> tuple[int, ...]:
        """The answer to a prompt.

        Raises:
            MethodError: there is none.
        """
        found = None if ids is None else self.by_prompt.get(tuple(ids.flatten().tolist()))
        if not found:
            raise MethodError("The oracle was given answers, and none to this prompt: leave them out for its own.")
        return found


def read_answers(file: Path, configuration: Any = None) -> Answers:
    """Answers by their prompts; of two to one prompt, the last.

    Args:
        file: with a line for each; blank ones are left out.
        configuration: of the model that is to know their tokens; None where that is not known.

    Raises:
        MethodError: there is no such file, it is too long, or a line of it is not as it should be.
    """
    try:
        size = file.stat().st_size if file.is_file() else None  # a pipe or a device might never end
        text = file.read_text("utf-8-sig") if size is not None and size <= LONGEST_ANSWERS else ""
    except (OSError, UnicodeDecodeError):
        size, text = None, ""
    if size is None:
        raise MethodError(f"{file.parent} holds no answers that can be read: there is no {file.name} in UTF-8.")
    if size > LONGEST_ANSWERS:
        raise MethodError(f"{file} has {size:,} bytes, and at most {LONGEST_ANSWERS:,} of answers are read.")
    known = None if configuration is None else int(configuration.get_text_config(decoder=True).vocab_size)
    found = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            told = json.loads(line)
            prompt, answer = _ids(told["prompt"]), _ids(told["answer"])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise MethodError(
                f'Line {number} of {file} is not {{"prompt": [ids], "answer": [ids]}}, with an id in each at least.'
            ) from error
        if known is not None and max(answer) >= known:
            raise MethodError(
                f"Line {number} of {file} answers with token {max(answer)}, and the model knows {known}, from 0."
            )
        found[prompt] = answer
    if not found:
        raise MethodError(f"{file} is empty: it needs a line for each prompt.")
    return Answers(found)


def _ids(told: Any) -> tuple[int, ...]:
    if not isinstance(told, list) or not told or not all(type(each) is int and each >= 0 for each in told):
        raise ValueError
    return tuple(told)
