"""Differences of scores as people read them."""

from __future__ import annotations

from typing import Any


def points(value: float | None) -> str:
    """A difference of rates in points; a dash for none."""
    return "–" if value is None else f"{100 * value:+.1f}"


def p_value(value: float | None) -> str:
    """A p-value as people read it; a dash for none."""
    return "–" if value is None else "<0.0001" if value < 0.0001 else f"{value:.4f}"


def interval(row: dict[str, Any]) -> str:
    """A difference's interval in points; a dash where there is none."""
    return "–" if row["low"] is None else f"[{points(row['low'])}, {points(row['high'])}]"
