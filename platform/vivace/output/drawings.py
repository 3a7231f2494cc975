"""Plots as files, drawn in this process: nothing is fetched for them, and no name in them can end it."""

from __future__ import annotations

from typing import Any

from vivace.output.printable import printable


def svg(plot: dict[str, Any]) -> str:
    """A plot as SVG.

    Args:
        plot: as Vega-Lite has it.
    """
    import vl_convert

    drawn: str = vl_convert.vegalite_to_svg(drawable(plot))
    return drawn


def png(plot: dict[str, Any], scale: float) -> bytes:
    """A plot as PNG, on white.

    Args:
        plot: as Vega-Lite has it.
        scale: pixels for each of the plot's own.
    """
    import vl_convert

    drawn: bytes = vl_convert.vegalite_to_png(drawable(plot), scale=scale)
    return drawn


def drawable(part: Any) -> Any:
    """The plot without characters that XML has no word for, on which drawing aborts the whole process, and without
    those that turn words round."""
    if isinstance(part, dict):
        return {printable(key): drawable(value) for key, value in part.items()}
    if isinstance(part, list):
        return [drawable(value) for value in part]
    return printable(part) if isinstance(part, str) else part
