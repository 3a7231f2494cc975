"""What the passes of a model with methods on it are for: told by the loop, asked by hooks, recorded in a ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from vivace_methods.errors import MethodError
from vivace_methods.models.anatomy import anatomy
from vivace_methods.models.ledger import Ledger, PassKind
from vivace_methods.models.pass_recorder import PassRecorder, counting

if TYPE_CHECKING:
    from vivace_methods.decoding.trees import Tree


class Passes:
    """The passes of one model.

    Attributes:
        ledger: every pass since it was cleared, whoever called the model; none where the architecture is not known.
        kind: of the pass that runs, where the loop has said it; None under other loops.
        tree: of drafts that the pass verifies; None in all other passes.
    """

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.kind: PassKind | None = None
        self.tree: Tree | None = None
        self.recorder: PassRecorder | None = None

    @contextmanager
    def of(self, kind: PassKind, tree: Tree | None = None) -> Iterator[None]:
        """Say what the passes are for that run while the context lasts, and which tree of drafts they verify."""
        before = self.kind, self.tree
        self.kind, self.tree = kind, tree
        try:
            yield
        finally:
            self.kind, self.tree = before

    def around(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """A compiled step of the model whose runs are recorded too."""
        return step if self.recorder is None else self.recorder.around(step)


_of_models: WeakKeyDictionary[Any, Passes] = WeakKeyDictionary()


@contextmanager
def passes_of(model: Any) -> Iterator[Passes]:
    """The passes of a model, recorded while the context lasts.

    Methods that are attached to one model at once share them: inside of another such context it is that one's.

    Args:
        model: of transformers.
    """
    if model in _of_models:
        yield _of_models[model]
        return
    passes = Passes()
    with ExitStack() as contexts:
        try:
            anatomy(model)
        except MethodError:
            pass  # nothing is known of what its passes cost, which is said where somebody asks for it
        else:
            passes.recorder = contexts.enter_context(counting(model, passes.ledger, lambda: passes.kind))
        _of_models[model] = passes
        contexts.callback(_of_models.pop, model)
        yield passes
