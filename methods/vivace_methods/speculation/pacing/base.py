"""What a pace is: it says before each pass how far to draft, and after drafting how much to verify."""

from __future__ import annotations

from typing import Any

from vivace_methods.decoding.trees import Tree


class Pace:
    """How far to draft, and how much of it to verify; this one drafts as far as it may, and verifies it all."""

    def prepare(self, model: Any) -> None:
        """Measure what it needs to know, before the first generation.

        Args:
            model: with everything attached.
        """

    def begin(self) -> None:
        """A generation begins; nothing is known of it from those before."""

    def depth(self, most: int) -> int:
        """Of the next tree; 0 drafts nothing.

        Args:
            most: that it may be.
        """
        return most

    def cut(self, tree: Tree) -> Tree:
        """The part of a tree that is verified."""
        return tree

    def verified(self, drafted: int, stood: int) -> None:
        """Take notice of a verified tree.

        Args:
            drafted: depth that was asked for.
            stood: drafts that stood.
        """
