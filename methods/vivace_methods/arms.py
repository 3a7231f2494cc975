"""An arm: one method, or several that go together, each with what was fitted for it, as a person writes them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vivace_methods.cache_needs import require_one_cache
from vivace_methods.protocol import Attached, Generator, Method, MethodError, Need, Role
from vivace_methods.spelling import write

if TYPE_CHECKING:
    import torch

FolderOf = Callable[[str], Path]
"""Where something fitted lies, by the name that an arm gives it: a folder, or a name that the caller knows."""


@dataclass(frozen=True)
class ArmMember:
    """A method in an arm.

    Attributes:
        method: with its settings.
        fitted: where that which was fitted lies, as it was written: a folder or `zoo:NAME`; None where nothing is.
    """

    method: Method
    fitted: str | None = None

    def __post_init__(self) -> None:
        if self.fitted is None and Need.DRAFTER in self.method.needs:
            name = self.method.name
            raise MethodError(f"{name} needs a drafter: write {name}:FOLDER or {name}:zoo:NAME.")
        if self.fitted is not None and type(self.method).read_fitted is Method.read_fitted:
            raise MethodError(f"{self.method.name} takes nothing fitted, and was given {self.fitted}.")

    @property
    def awaits_recipe(self) -> bool:
        """Whether a recipe is to be fitted first."""
        return self.fitted is None and Need.RECIPE in self.method.needs


@dataclass(frozen=True)
class Arm:
    """Methods that are measured together as one.

    Attributes:
        members: in the order in which they were written, at least one.
    """

    members: tuple[ArmMember, ...]

    def __post_init__(self) -> None:
        for role in Role:
            names = [member.method.name for member in self.members if role in member.method.roles]
            if len(names) > 1:
                raise MethodError(f"{' and '.join(names)} do not go together: each of them {role}.")
        require_one_cache({method.name: method.cache_needs for method in self.methods})

    @classmethod
    def of(cls, method: Method, fitted: str | None = None) -> Arm:
        """An arm of a single method."""
        return cls((ArmMember(method, fitted),))

    @property
    def name(self) -> str:
        """The names of its methods: `r-sparse+eagle-3`."""
        return "+".join(member.method.name for member in self.members)

    @property
    def methods(self) -> tuple[Method, ...]:
        """Of all members."""
        return tuple(member.method for member in self.members)

    @property
    def inexact(self) -> tuple[ArmMember, ...]:
        """The members that change what a model writes: arms that share these must write the same."""
        return tuple(member for member in self.members if not member.method.exact)

    @property
    def families(self) -> frozenset[str]:
        """To which its methods belong."""
        return frozenset(method.family for method in self.methods)

    @property
    def fitted(self) -> str | None:
        """What was fitted, as it was written; of an arm of several methods, each with the method's name before it."""
        if len(self.members) == 1:
            return self.members[0].fitted
        found = [f"{each.method.name}:{each.fitted}" for each in self.members if each.fitted is not None]
        return "+".join(found) or None

    @property
    def awaits_recipe(self) -> bool:
        """Whether one of its methods is to be fitted first."""
        return any(member.awaits_recipe for member in self.members)

    def with_recipe(self, folder: str) -> Arm:
        """The arm with a recipe for the method that awaits one."""
        return Arm(tuple(replace(each, fitted=folder) if each.awaits_recipe else each for each in self.members))

    def found_by(self, folder_of: FolderOf) -> Arm:
        """The arm with the folders in place of the names of what was fitted."""
        return Arm(
            tuple(
                each if each.fitted is None else replace(each, fitted=str(folder_of(each.fitted).absolute()))
                for each in self.members
            )
        )

    @property
    def settings(self) -> dict[str, Any]:
        """All settings; of an arm of several methods, with the method's name before them: `eagle-3.depth`."""
        if len(self.members) == 1:
            return self.members[0].method.settings
        return {
            f"{method.name}.{setting}": value for method in self.methods for setting, value in method.settings.items()
        }

    @property
    def label(self) -> str:
        """As `parse_arm` reads it: `r-sparse(sparsity=0.4):FOLDER+eagle-3(depth=3):zoo:dense-drafter`."""
        return self.label_showing(())

    def label_showing(self, settings: Collection[str]) -> str:
        """The label with these settings in it also where they are at their defaults."""
        return write(replace(each.method.part_showing(settings), folder=each.fitted) for each in self.members)

    def memory(self, configuration: Any, dtype: torch.dtype, prompt: int, answer: int) -> int:
        """About how many bytes an answer takes: plain decoding's, and what each method takes beyond that.

        Raises:
            MethodError: an architecture whose shapes are not known.
        """
        from vivace_methods.models.cost import greedy_memory

        plain = greedy_memory(configuration, prompt, answer, dtype)
        return plain + sum(each.memory(configuration, dtype, prompt, answer) - plain for each in self.methods)

    @contextmanager
    def attach(self, model: Any, folder_of: FolderOf = Path) -> Iterator[Attached]:
        """All methods on a model while the context lasts, each with what was fitted for it, under whatever loop.

        Args:
            model: of transformers, in evaluation mode.
            folder_of: finds what was fitted.

        Raises:
            MethodError: as each method's `attach` and `read_fitted` say.
        """
        from vivace_methods.decoding.joined import together

        with self._attached(model, folder_of) as attached:
            yield together(attached)

    @contextmanager
    def apply(self, model: Any, folder_of: FolderOf = Path) -> Iterator[Generator]:
        """The methods on a model while the context lasts, and the loop that generates with them.

        Args:
            model: a causal language model of transformers.
            folder_of: finds what was fitted.

        Raises:
            MethodError: as `attach` says; or they ask for caches that exclude each other.
        """
        from vivace_methods.decoding.joined import generator_of

        with self._attached(model, folder_of) as attached:
            yield generator_of(model, attached)

    @contextmanager
    def _attached(self, model: Any, folder_of: FolderOf) -> Iterator[dict[str, Attached]]:
        fitted = [
            None if member.fitted is None else member.method.read_fitted(folder_of(member.fitted), model)
            for member in self.members
        ]
        with ExitStack() as contexts:
            yield {
                member.method.name: contexts.enter_context(member.method.attach(model, its))
                for member, its in zip(self.members, fitted, strict=True)
            }
