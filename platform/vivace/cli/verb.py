"""What every verb of `vivace` does with its arguments before it is run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from typer.core import TyperCommand

from vivace.files.paths import with_homes
from vivace_methods.suggestions import did_you_mean


class Verb(TyperCommand):
    """A verb whose paths may begin with `~`, also where no shell writes it out, and whose choices are guessed at."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments."""
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            message = getattr(error, "message", "").replace("Value error, ", "").rstrip(".")
            if (choice := re.search(r"'([^']*)' is not one of (.*)", message)) is not None:
                meant = did_you_mean(choice[1], re.findall("'([^']+)'", choice[2]))
                error.message = f"{message}{meant}."  # type: ignore[attr-defined]
            raise

    def invoke(self, ctx: Any) -> Any:
        """Run the verb."""
        ctx.params = {name: _with_homes(name, value) for name, value in ctx.params.items()}
        return super().invoke(ctx)


def _with_homes(name: str, value: Any) -> Any:
    if isinstance(value, Path):
        return Path(with_homes(str(value)))
    if isinstance(value, list):
        return [_with_homes(name, each) for each in value]
    return with_homes(value) if type(value) is str and name not in NO_PATHS else value


NO_PATHS = frozenset({"reason", "model_arg", "judge_arg"})
"""Options that say something else, which is left as it is."""
