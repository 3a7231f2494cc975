"""The settings of trees that methods share, and the sentences about those that cannot be; read without torch."""

from __future__ import annotations

from typing import Protocol

from vivace_methods.errors import MethodError


class TreeSettings(Protocol):
    """What a method that drafts chains or trees sets."""

    @property
    def name(self) -> str:
        """Of the method."""

    @property
    def depth(self) -> int:
        """Tokens of the longest path."""

    @property
    def tokens(self) -> int:
        """That a pass verifies, the root among them; 0 for a chain."""

    @property
    def top_k(self) -> int:
        """Candidates that a token has."""

    @property
    def growth(self) -> str:
        """`dynamic` or `static`."""

    @property
    def drawn(self) -> bool:
        """Whether drafts are drawn."""


def require_growing(settings: TreeSettings) -> None:
    """Refuse settings of which no tree grows.

    Raises:
        MethodError: a number below what it may be, or two settings that exclude each other.
    """
    for name, value, least in (("depth", settings.depth, 1), ("top_k", settings.top_k, 1)):
        if value < least:
            raise MethodError(f"The setting {name} of {settings.name} must be at least {least}, not {value}.")
    if settings.tokens < 0 or settings.tokens == 1:
        raise MethodError(
            f"The setting tokens of {settings.name} must be 0 for a chain, or at least 2 for a root and a draft, "
            f"not {settings.tokens}."
        )
    if settings.drawn and settings.tokens:
        raise MethodError(f"{settings.name} draws chains alone: leave out drawn=true, or tokens={settings.tokens}.")
