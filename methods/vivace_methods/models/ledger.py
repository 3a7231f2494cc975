"""The record of a model's forward passes, from which follows what they moved and computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    import torch

PassKind = Literal["read", "decode", "verify", "draft"]
"""Reading (part of) a prompt; one token after the other; several drafted tokens at once; a pass of a drafter."""
KINDS: tuple[PassKind, ...] = get_args(PassKind)


@dataclass(frozen=True)
class Pass:
    """One forward pass of a model, or of a drafter beside it.

    Attributes:
        kind: what it was for.
        tokens: positions of each sequence that went through the layers.
        context: positions of each sequence in the cache before the pass.
        logits: positions of each sequence whose logits were computed.
        sequences: how many went through at once.
        layer_tokens: tokens through each layer, where a reader prunes on the way and they are not `tokens` in all.
        layer_context: positions in each layer's cache before the pass, where they are not `context` in all.
        layer_kept: positions of the pass that each layer puts into its cache, where it keeps fewer than it read.
        layer_pairs: pairs of a token and a position that it looks at in each layer, where these are not all before
            it.
        linear_tokens: name of a linear layer, as the decoder's `named_modules` gives it → tokens that went through
            it, where these are not those of its block.
        prompt: tokens of the prompt that was read, where some were left out on the way or in the caches.
        depths: of each token in the draft's tree, from 0 at its root: the token looks at the context, at those above
            it and at itself. None where each token looks at all before it.
        experts: different experts that were read in each layer that has some, as counted; None where nobody counted,
            in all layers or in one.
        routed: pairs of a token and an expert that were computed in each such layer; None for as many as the router
            gives.
        read: name of a linear layer, as the model's `named_modules` gives it → weights that were read for it, where
            these are not just its own: the kept channels', and a low-rank part's.
        read_bytes: name of a linear layer → bytes that were read for it, where its weights are not stored in the
            model's type, but rounded to fewer bits.
        weights: of whatever else was read whole, a drafter above all; each token is multiplied with each of them.
        budget: name of a figure → its value in each layer whose experts were under a budget, by the layer's number.
    """

    kind: PassKind
    tokens: int
    context: int
    logits: int = 1
    sequences: int = 1
    layer_tokens: tuple[int, ...] | None = None
    layer_context: tuple[int, ...] | None = None
    layer_kept: tuple[int, ...] | None = None
    layer_pairs: tuple[int, ...] | None = None
    linear_tokens: Mapping[str, int] = field(default_factory=dict)
    prompt: int | None = None
    depths: tuple[int, ...] | None = None
    experts: tuple[int | None, ...] | None = None
    routed: tuple[int | None, ...] | None = None
    read: Mapping[str, int] = field(default_factory=dict)
    read_bytes: Mapping[str, int] = field(default_factory=dict)
    weights: int = 0
    budget: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """What is not as usual, for a record."""
        found = {each.name: getattr(self, each.name) for each in fields(self)}
        usual = {each.name: each.default for each in fields(self)}
        for name in ("read", "read_bytes", "linear_tokens", "budget"):
            found[name], usual[name] = dict(getattr(self, name)) or None, None
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in found.items()
            if value != usual[name]
        }

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> Pass:
        """A pass from its record.

        Raises:
            ValueError: it lacks what every pass has, or holds what none has.
        """
        names = {each.name for each in fields(cls)}
        if unknown := sorted(written.keys() - names):
            raise ValueError(f"A pass has no {', '.join(unknown)}.")
        if written.get("kind") not in KINDS or not {"tokens", "context"} <= written.keys():
            raise ValueError(
                f"A pass has tokens, a context and a kind ({', '.join(KINDS)}): {dict(written)} lacks one."
            )
        known: dict[str, Any] = {name: tuple(it) if isinstance(it, list) else it for name, it in written.items()}
        return cls(**known)


Tell = Callable[[Pass, "torch.Tensor"], Pass]
"""Completes a pass by what was counted during it: a tensor on the processor, in the shape in which it was counted."""


class Ledger:
    """The passes of a generation, in order.

    Counting never waits for a device: numbers that lie there are copied there, and fetched together when the passes
    are asked for.
    """

    def __init__(self) -> None:
        self._entries: list[_Entry] = []
        self._counters: list[tuple[torch.Tensor, Tell]] = []
        self._notes: dict[str, Any] = {}

    @contextmanager
    def counter(self, counts: torch.Tensor, tell: Tell) -> Iterator[None]:
        """Let modules count on the device while the context lasts.

        Whatever they have added to the tensor by the end of a pass belongs to that pass; then it begins at zero
        again. The tensor stays in its place, so that a CUDA graph may add to it.

        Args:
            counts: integers, zero at first.
            tell: says what they mean.
        """
        entry = (counts, tell)
        self._counters.append(entry)
        try:
            yield
        finally:
            self._counters = [each for each in self._counters if each is not entry]

    def note(self, **known: Any) -> None:
        """Say something of the pass that runs or comes next, and of that one alone, by names of `Pass`.

        In place of a value may stand a function that gives it, which is called when the passes are asked for: what
        has to wait for a device, or takes long, belongs there.
        """
        self._notes.update(known)

    def record(self, one: Pass, later: Sequence[tuple[torch.Tensor, Tell]] = ()) -> None:
        """Add a pass that has just run.

        Args:
            one: what is known of it without asking the device.
            later: numbers on the device, which nobody changes any more, and what they say of the pass.
        """
        copies = [(counts.clone(), tell) for counts, tell in self._counters]
        for counts, _ in self._counters:
            counts.zero_()
        self._entries.append(_Entry(one, self._notes, [*copies, *later]))
        self._notes = {}

    def record_other(self, one: Pass) -> None:
        """Add a pass of another model, a drafter, on which nothing of this one's was counted."""
        self._entries.append(_Entry(one, {}, []))

    def amend(self, **known: Any) -> None:
        """Say something more of the latest pass, by names of `Pass`."""
        self._entries[-1].known.update(known)

    @property
    def passes(self) -> tuple[Pass, ...]:
        """All of them. Numbers on a device are fetched, once, which waits for it."""
        self._settle()
        return tuple(entry.one for entry in self._entries)

    def take(self) -> Ledger:
        """All passes so far in a ledger of their own, and none left in this one."""
        taken = Ledger()
        taken._entries, self._entries = self._entries, []
        self._notes = {}
        return taken

    def clear(self) -> None:
        """Forget everything, so that another generation can be recorded."""
        self._entries, self._notes = [], {}
        for counts, _ in self._counters:
            counts.zero_()

    def _settle(self) -> None:
        waiting = [counts for entry in self._entries for counts, _ in entry.waiting]
        fetched = iter(_fetched(waiting) if waiting else [])
        for entry in self._entries:
            if entry.known:
                known = {name: value() if callable(value) else value for name, value in entry.known.items()}
                entry.one = replace(entry.one, **known)
            for _, tell in entry.waiting:
                entry.one = tell(entry.one, next(fetched))
            entry.known, entry.waiting = {}, []


@dataclass(slots=True)
class _Entry:
    """A pass, what was said of it besides, and what the device counted during it: put together when asked for."""

    one: Pass
    known: dict[str, Any]
    waiting: list[tuple[torch.Tensor, Tell]]


def _fetched(counts: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Small tensors of integers on the processor, in one transfer from each device."""
    import torch

    found: dict[int, torch.Tensor] = {}
    for device in {each.device for each in counts}:
        places = [place for place, each in enumerate(counts) if each.device == device]
        fetched = torch.cat([counts[place].flatten().to(torch.int64) for place in places]).cpu()
        parts = fetched.split([counts[place].numel() for place in places])
        found.update((place, part.view(counts[place].shape)) for place, part in zip(places, parts, strict=True))
    return [found[place] for place in range(len(counts))]
