"""The setting `only` of methods that replace linear layers: which of them, by name."""

from __future__ import annotations

import re

from vivace_methods.errors import MethodError


def name_pattern(only: str) -> re.Pattern[str]:
    """The regular expression that is found in the names of the layers that are meant; an empty one means all.

    Raises:
        MethodError: it is none.
    """
    try:
        return re.compile(only)
    except re.error as error:
        raise MethodError(f"The setting only, '{only}', is no regular expression: {error}.") from error
