"""An arm: a method with its settings and with what was fitted for it, as a person writes it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vivace_methods.protocol import Generator, Method, MethodError
from vivace_methods.spelling import write

FolderOf = Callable[[str], Path]
"""Where something fitted lies, by the name that an arm gives it: a folder, or a name that the caller knows."""


@dataclass(frozen=True)
class Arm:
    """A method in a comparison.

    Attributes:
        method: with its settings.
        fitted: where that which was fitted lies, as it was written: a folder or `zoo:NAME`; None where nothing is.
    """

    method: Method
    fitted: str | None = None

    def __post_init__(self) -> None:
        if self.fitted is None and "drafter" in self.method.needs:
            name = self.method.name
            raise MethodError(f"{name} needs a drafter: write {name}:FOLDER or {name}:zoo:NAME.")
        if self.fitted is not None and type(self.method).read_fitted is Method.read_fitted:
            raise MethodError(f"{self.method.name} takes nothing fitted, and was given {self.fitted}.")

    @property
    def label(self) -> str:
        """As `parse_arm` reads it: `eagle-3(depth=3):zoo:moe-drafter`."""
        return self.label_showing(())

    def label_showing(self, settings: Collection[str]) -> str:
        """The label with these settings in it also where they are at their defaults."""
        return write([replace(self.method.part_showing(settings), folder=self.fitted)])

    @contextmanager
    def apply(self, model: Any, folder_of: FolderOf = Path) -> Iterator[Generator]:
        """The method on a model while the context lasts, with what was fitted for it.

        Args:
            model: a causal language model of transformers.
            folder_of: finds what was fitted.

        Raises:
            MethodError: as the method's `apply` and `read_fitted` say.
        """
        fitted = None if self.fitted is None else self.method.read_fitted(folder_of(self.fitted), model)
        with self.method.apply(model, fitted) as generator:
            yield generator
