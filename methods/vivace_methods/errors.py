"""What methods raise."""

from __future__ import annotations


class MethodError(ValueError):
    """A method cannot do what it is asked: wrong settings, a model it does not fit, a missing drafter."""
