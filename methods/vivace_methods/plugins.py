"""What can be chosen by name: built in, or brought by another package through an entry point.

A package adds a method, adapter, transcriber, task, judge or budget rule by an entry point of the groups
`vivace.methods`, `vivace.adapters`, `vivace.transcribers`, `vivace.tasks`, `vivace.judges` and `vivace.budget_rules`,
or a place for workers by one of `vivace.dispatch`. Nothing is imported before it is asked for, and what cannot be
imported is named where it is asked for, and by `vivace doctor`; everything else goes on without it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, ItemsView, Iterator, Mapping, Sequence, ValuesView
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from vivace_methods.suggestions import did_you_mean

Kind = TypeVar("Kind")


class PluginError(ValueError):
    """There is nothing of a name, or what another package has brought under it cannot be used."""


@dataclass(frozen=True)
class Brought:
    """What another package brings.

    Attributes:
        name: as a person writes it.
        package: name and version of the package.
        place: its `module:object`.
        fault: why it cannot be used; empty where it can.
        is_hidden: whether another of the same name comes before it.
    """

    name: str
    package: str
    place: str
    fault: str = ""
    is_hidden: bool = False


class Registry(Mapping[str, Kind], Generic[Kind]):
    """Things of one kind by name; the built-in ones come first, and win where a name is brought again.

    Iterating gives all names; `items` and `values` leave out what cannot be imported.

    Args:
        what: one of them, in a sentence: `method`.
        group: of the entry points.
        built_in: name → `module:object`.
        fault_of: what is wrong with an object that was brought under a name; empty where nothing is.
    """

    def __init__(
        self, what: str, group: str, built_in: Mapping[str, str], fault_of: Callable[[str, object], str]
    ) -> None:
        self.what, self.group = what, group
        self._built_in, self._fault_of = dict(built_in), fault_of

    def __getitem__(self, name: str) -> Kind:
        """What has this name, imported now.

        Raises:
            PluginError: there is none, or it cannot be used.
        """
        if name in self._built_in:
            module, _, attribute = self._built_in[name].partition(":")
            found: Kind = getattr(import_module(module), attribute)
            return found
        brought = self._brought.get(name)
        if brought is None:
            raise PluginError(
                f"There is no {self.what} '{name}'{did_you_mean(name, self)}; there are {', '.join(self)}."
            )
        made, fault = self._loaded(brought)
        if fault:
            raise PluginError(
                f"The {self.what} {name} of the package {_package(brought)} cannot be used: {fault}. Mend or remove "
                "the package."
            )
        return made  # type: ignore[return-value]  # `fault_of` has seen to that

    def __iter__(self) -> Iterator[str]:
        """All names, those of the built-in ones first."""
        yield from self._built_in
        yield from (name for name in self._brought if name not in self._built_in)

    def __len__(self) -> int:
        """How many names there are."""
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        """Whether something has this name."""
        return name in self._built_in or name in self._brought

    def items(self) -> ItemsView[str, Kind]:
        """Names with what they stand for, without what cannot be imported."""
        return self.usable().items()

    def values(self) -> ValuesView[Kind]:
        """What there is, without what cannot be imported."""
        return self.usable().values()

    def usable(self) -> dict[str, Kind]:
        """All that can be imported, by name."""
        found = {}
        for name in self:
            try:
                found[name] = self[name]
            except PluginError:
                continue
        return found

    def brought(self) -> list[Brought]:
        """What other packages bring, each tried out."""
        taken = set(self._built_in)
        found = []
        for point in self._points():
            is_hidden = point.name in taken
            taken.add(point.name)
            fault = "" if is_hidden else self._loaded(point)[1]
            found.append(Brought(point.name, _package(point), point.value, fault, is_hidden))
        return found

    @property
    def _brought(self) -> dict[str, EntryPoint]:
        found: dict[str, EntryPoint] = {}
        for point in self._points():
            found.setdefault(point.name, point)
        return found

    def _points(self) -> Sequence[EntryPoint]:
        return _points_of(self.group, tuple(sys.path))

    def _loaded(self, point: EntryPoint) -> tuple[object, str]:
        """What an entry point stands for, and what is wrong with it."""
        try:
            with redirect_stdout(sys.stderr):  # what is printed there is no data of ours
                made = point.load()
                return made, self._fault_of(point.name, made)
        except (Exception, SystemExit) as error:  # code of others, which raises what it likes
            told = " ".join(str(error).split()).rstrip(".")
            return None, f"{type(error).__name__}: {told}" if told else type(error).__name__


def fault_of_subclass(name: str, made: object, base: type) -> str:
    """What is wrong with a class that was brought under a name, which is also its own; empty where nothing is."""
    if not (isinstance(made, type) and issubclass(made, base)):
        return f"it is no class that derives from {base.__module__}.{base.__name__}"
    its_name = getattr(made, "name", None)
    return "" if its_name == name else f"it calls itself {its_name!r}"


@cache
def _points_of(group: str, path: Sequence[str]) -> Sequence[EntryPoint]:
    """The entry points of a group, of all packages on the path: to look through them takes long."""
    return sorted(entry_points(group=group), key=lambda point: (point.name, _package(point)))


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else "?"
