"""Tables for people: the columns that matter in the width there is, names cut with an ellipsis, no empty columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import typer

from vivace.errors import UsageError
from vivace.output.printable import printable
from vivace_methods.suggestions import did_you_mean

Cell = Callable[[dict[str, Any]], str]

EMPTY = ("", "–")
GAP = 2
"""Blanks between columns."""
SHORTEST_NAME = 12
"""Characters that are left of a name that is cut, and more where names would come to look alike."""
TELLING_APART = 32
"""Characters that names are given at the most, so that they do not look alike."""
LONG_NAME = 24
"""Characters of a name that come before a column of less weight."""
NARROWEST_PROSE = 24
FEWEST = 3
"""Where not even so many of the columns that matter most fit, rows are printed as lines of cells."""


@dataclass(frozen=True)
class ShownColumns:
    """How rows are shown to people."""

    columns: Mapping[str, Cell]
    """Heading → a row's text under it, in the order in which they stand."""
    first: tuple[str, ...] = ()
    """The columns that matter most where not all fit; the others follow as they stand.

    Without any all of them matter: where they do not fit, rows are lines of cells.
    """
    then: tuple[str, ...] = ()
    """Those that matter next, for which names are not cut further."""
    cut: tuple[str, ...] = ()
    """Names, which may be cut with an ellipsis."""
    prose: tuple[str, ...] = ()
    """Sentences, which go on in the next line of their cell."""

    def chosen(self, names: str) -> dict[str, Cell]:
        """The columns that a person names, with commas between them, in that order.

        Raises:
            UsageError: there is no column of some name.
        """
        return {heading: self.columns[heading] for heading in chosen_headings(names, self)}

    @property
    def by_weight(self) -> list[str]:
        """All headings, those that matter most first."""
        return list(dict.fromkeys([*self.first, *self.then, *self.columns]))


def chosen_headings(names: str, *tables: ShownColumns) -> list[str]:
    """The headings of some tables that a person names.

    Args:
        names: with commas between them; neither case nor signs count, so that `apr` is `APR %`.
        tables: those that are printed together.

    Raises:
        UsageError: no table has a column of some name.
    """
    headings = list(dict.fromkeys(heading for table in tables for heading in table.columns))
    found = []
    for name in filter(None, (part.strip() for part in names.split(","))):
        exact = [heading for heading in headings if heading.casefold() == name.casefold()]
        alike = exact or [heading for heading in headings if _plain(heading) == _plain(name)]
        if not alike:
            raise UsageError(
                f"There is no column '{name}'{did_you_mean(name, headings)}; the columns are {', '.join(headings)}."
            )
        found.append(alike[0])
    return list(dict.fromkeys(found))


def _plain(heading: str) -> str:
    """Letters and digits alone; the whole where there are none."""
    return "".join(sign for sign in heading.casefold() if sign.isalnum()) or heading


def print_table(
    rows: Sequence[dict[str, Any]], table: ShownColumns, names: str | None = None, width: int | None = None
) -> list[str]:
    """Print rows as a table, or as lines of cells where a table would not be readable.

    Args:
        rows: to be shown.
        table: how.
        names: the columns that a person wants, all of them then; None or nothing leaves out those that are empty, and
            those that do not fit.
        width: characters to a line; None for as many as it takes, a row a line.

    Returns:
        The headings of the columns for which there was no room.
    """
    columns = table.chosen(names) if names else table.columns
    cells = {heading: [_line(text(row), heading in table.prose) for row in rows] for heading, text in columns.items()}
    if rows and not names:
        cells = {heading: texts for heading, texts in cells.items() if any(text not in EMPTY for text in texts)}
    widths = fitted(cells, table, width, all_of_them=bool(names))
    if widths is None:
        _print_records(cells)
        return []
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    shown = [heading for heading in cells if heading in widths]
    grid = Grid(box=None, pad_edge=False, header_style="bold")
    for heading in shown:
        wraps = heading in table.prose
        grid.add_column(
            heading, width=widths[heading], no_wrap=not wraps, overflow="fold" if wraps else "ellipsis"
        )  # fmt: skip
    for line in zip(*(cells[heading] for heading in shown), strict=True):
        grid.add_row(*map(Text, line))
    Console(width=sum(widths.values()) + GAP * (len(widths) - 1)).print(grid)
    return [heading for heading in cells if heading not in widths]


def _line(text: str, is_prose: bool) -> str:
    text = printable(text)
    return text if is_prose else " ".join(text.splitlines())


def fitted(
    cells: Mapping[str, Sequence[str]], table: ShownColumns, width: int | None, *, all_of_them: bool = False
) -> dict[str, int] | None:
    """The columns for which there is room, with their widths; None where a table would not be readable."""
    telling = {heading: _telling_apart(cells[heading]) for heading in table.cut if heading in cells}
    return _fitted(cells, table, width, telling, all_of_them) or _fitted(cells, table, width, {}, all_of_them)


def _fitted(
    cells: Mapping[str, Sequence[str]],
    table: ShownColumns,
    width: int | None,
    wanted: Mapping[str, int],
    all_of_them: bool,
) -> dict[str, int] | None:
    """The same, where names have the width that they are wanted to have if there is room, else their least."""
    from rich.cells import cell_len

    natural = {
        heading: max(map(cell_len, (heading, *(line for text in texts for line in text.splitlines()))))
        for heading, texts in cells.items()
    }
    if width is None:
        return natural
    floors = {**dict.fromkeys(table.cut, SHORTEST_NAME), **dict.fromkeys(table.prose, NARROWEST_PROSE)}
    least = {
        heading: min(size, max(cell_len(heading), floors.get(heading, size))) for heading, size in natural.items()
    }
    order = [heading for heading in table.by_weight if heading in cells]
    taken: dict[str, int] = {}
    room = width + GAP

    def widen(most: int) -> None:
        nonlocal room
        for heading in order:
            if heading in taken:
                more = max(0, min(room, min(natural[heading], most) - taken[heading]))
                taken[heading] += more
                room -= more

    for place, heading in enumerate(order):
        if heading not in table.first:
            widen(LONG_NAME)
        size = min(natural[heading], max(least[heading], wanted.get(heading, 0)))
        size = size if size + GAP <= room else least[heading]
        if size + GAP <= room:
            taken[heading] = size
            room -= size + GAP
        elif all_of_them or not table.first or place < FEWEST:
            return None
    widen(width)
    return taken


def _telling_apart(names: Sequence[str]) -> int:
    """The width to which names may be cut so that those that differ still do, if that is not too wide."""
    from rich.cells import set_cell_size

    different = set(names)
    for width in range(SHORTEST_NAME, TELLING_APART + 1):
        if len({set_cell_size(name, width - 1) for name in different}) == len(different):
            return width
    return SHORTEST_NAME


def _print_records(cells: Mapping[str, Sequence[str]]) -> None:
    """One line per cell."""
    width = max(map(len, cells), default=0)
    for line in zip(*cells.values(), strict=True):
        given = ((heading, text) for heading, text in zip(cells, line, strict=True) if text not in EMPTY)
        typer.echo("\n".join(f"{heading:<{width}}  {text}" for heading, text in given) + "\n")
