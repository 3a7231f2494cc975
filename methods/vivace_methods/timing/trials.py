"""Trials and recordings: what was timed of arms on prompts, as it is kept, written down and compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from vivace_methods.models.ledger import Pass
from vivace_methods.requests import Request

Kind = Literal["first", "again", "twin", "twin again"]
TrialKey = tuple[str, str, int]
"""Arm, prompt and repetition: what makes a timed trial the same one after an interruption."""


@dataclass(frozen=True)
class Observed:
    """What was seen of a trial besides its tokens and times.

    Attributes:
        busy_after: the largest share of a processor that was in use after the clock had stopped, and of a GPU, above
            what the waiting of torch's own threads takes.
        tampered: clocks that it had replaced.
        changed: what it had changed of the process that all arms share.
        peak_bytes: of memory, by who counts them: `torch`, `driver`; empty on a CPU.
        energy_j: of the GPU; None where it cannot be read.
    """

    busy_after: float = 0.0
    tampered: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    peak_bytes: Mapping[str, int] = field(default_factory=dict)
    energy_j: float | None = None


@dataclass(frozen=True)
class TimedPrompt:
    """A prompt with a name that trials refer to."""

    name: str
    request: Request


@dataclass(frozen=True)
class Trial:
    """One timed generation of one arm; times are in seconds from handing over the prompt."""

    arm: str
    prompt: str
    repetition: int
    """How often this arm was timed on this prompt before."""
    place: int
    """The number of the trial in its session."""
    session: str = ""
    """The process that timed it: only trials of one session are compared with each other."""
    warmed: bool = False
    """Whether every arm had answered this prompt in the session's warm-up."""
    most_tokens: int = 0
    """How many tokens were asked for."""
    ended: bool = False
    """Whether the answer's last token is one that ends it."""
    tokens: tuple[int, ...] = ()
    emitted_s: tuple[float, ...] = ()
    """When each step handed over its tokens."""
    step_tokens: tuple[int, ...] = ()
    """Tokens of each step."""
    total_s: float = 0.0
    """Until the device was at rest after the last token."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    passes: tuple[Pass, ...] = field(default=(), compare=False)
    """The forward passes, from which its cost follows; they are not written down with it."""
    observed: Observed = Observed()
    failure: str | None = None
    """Why there is no result, for instance out of memory; the other arms go on."""

    @property
    def key(self) -> TrialKey:
        """What makes it the same trial after an interruption."""
        return self.arm, self.prompt, self.repetition

    @property
    def ttft_s(self) -> float | None:
        """Time to the first token."""
        return self.emitted_s[0] if self.emitted_s else None

    @property
    def tpot_s(self) -> float | None:
        """Mean time per token after the first step; None for answers of a single step."""
        after = sum(self.step_tokens[1:])
        return (self.emitted_s[-1] - self.emitted_s[0]) / after if after else None

    @property
    def itl_s(self) -> tuple[float, ...]:
        """Latencies between steps: what a reader of the stream waits between two arrivals."""
        return tuple(later - earlier for earlier, later in zip(self.emitted_s, self.emitted_s[1:], strict=False))

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens over the whole time, the prefill included."""
        return len(self.tokens) / self.total_s if self.tokens and self.total_s > 0 else None

    def as_json(self) -> dict[str, Any]:
        """All fields but the passes, as JSON has them; `from_json` reads them back."""
        written = asdict(replace(self, passes=()))
        del written["passes"]
        return written

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> Trial:
        """A trial as `as_json` wrote it.

        Raises:
            TypeError: it lacks a field, or has one that trials have not.
        """
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in written.items()
        }
        seen = values.pop("observed", {})
        names = {name: tuple(seen.get(name, ())) for name in ("tampered", "changed")}
        observed = Observed(**{**seen, **names})
        return cls(**values, observed=observed)


@dataclass(frozen=True)
class Recording:
    """Trials of one comparison, of one session or of several.

    Attributes:
        baseline: the arm that the others are compared with.
        trials: the timed ones, in their order.
        audits: those that were made for the audits alone, after the timed ones.
    """

    baseline: str
    trials: tuple[Trial, ...]
    audits: tuple[AuditTrial, ...] = ()

    def of(self, arm: str) -> list[Trial]:
        """An arm's trials that ended well."""
        return [trial for trial in self.trials if trial.arm == arm and trial.failure is None]

    def pairs(self, arm: str) -> list[tuple[Trial, Trial]]:
        """The arm's trials with the baseline's on the same prompt, in the same round of the same session."""
        baseline = {(trial.session, trial.prompt, trial.repetition): trial for trial in self.of(self.baseline)}
        keys = [(trial, (trial.session, trial.prompt, trial.repetition)) for trial in self.of(arm)]
        return [(trial, baseline[key]) for trial, key in keys if key in baseline]

    @property
    def arms(self) -> list[str]:
        """All arms, in the order in which they were first timed."""
        return list(dict.fromkeys(trial.arm for trial in self.trials))

    def failures(self, arm: str) -> list[str]:
        """The different reasons for which trials of an arm have no result."""
        found = (trial.failure for trial in self.trials if trial.arm == arm and trial.failure is not None)
        return list(dict.fromkeys(found))


@dataclass(frozen=True)
class AuditTrial:
    """A trial that shows what an arm has kept of earlier ones.

    Attributes:
        trial: as it was timed.
        kind: `first` and `again` follow each other on a prompt that was timed before; `twin` and `twin again` on one
            of the same length that no arm has met.
    """

    trial: Trial
    kind: Kind
