"""Refusals that every call would meet: of a key, a model, an address, a parameter, a quota. They end a run.

A mistake is found out for the price of one call, where nothing was answered before. A server that has answered is
believed only when it refuses call after call: one such answer among good ones is a failure of its own call alone.
An account without credit ends a run at any time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import httpx

from vivace.errors import IncompleteError, UnreachableError, UsageError, VivaceError

MOST_IN_A_ROW = 20
"""So many refusals without an answer between them end a run: more than all tries of one conversation's verdicts."""

_LENGTH = re.compile(r"context|too (long|large|many)|maximum .{0,20}length|exceed", re.IGNORECASE)
_ALIASES = {
    "response_format": (
        "response_format", "response format", "json_schema", "json schema", "structured output", "structured outputs",
        "guided_json", "guided decoding",
    )
}  # fmt: skip
"""Other words by which servers mean a parameter."""
LONGEST_TARGET = 200
"""Characters of an address that a message shows."""


class Refusals:
    """What one client was refused since it was last answered."""

    def __init__(self) -> None:
        self._has_answered = False
        self._in_a_row = 0

    def answered(self) -> None:
        """Note an answer."""
        self._has_answered, self._in_a_row = True, 0

    def note(self, error: VivaceError, *, is_certain: bool = True) -> None:
        """Note a refusal.

        Args:
            error: what ends the run if no call will be answered.
            is_certain: whether one such refusal is enough where nothing was answered before.

        Raises:
            VivaceError: the error.
        """
        self._in_a_row += 1
        if self._in_a_row >= MOST_IN_A_ROW or (is_certain and not self._has_answered):
            raise error

    @property
    def has_answered(self) -> bool:
        """Whether anything was ever answered."""
        return self._has_answered


def no_credit(role: str, model: str, detail: str) -> UnreachableError:
    """The error of an account that has nothing left to spend."""
    return UnreachableError(
        f"The account that pays for the {role} '{model}' has no credit left ({detail}); "
        "top it up, then run the same command again."
    )


def spent_quota(role: str, model: str, pause_s: float | None, detail: str) -> IncompleteError:
    """The error of a quota that is not renewed while a run can wait.

    Args:
        pause_s: what the server asks for; None where it names none.
    """
    asks = "turns every call away" if pause_s is None else f"asks for a pause of {_length_of_time(pause_s)}"
    return IncompleteError(
        f"The quota of the {role} '{model}' is spent: its server {asks} ({detail}). What is recorded stays, and the "
        "same command goes on when the quota is renewed."
    )


def _length_of_time(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"


def redirect(role: str, model: str, base: str | None, location: str) -> UsageError:
    """The error of an address that only points elsewhere.

    Args:
        base: the address that was asked, where it is known.
        location: what the server says, without judging it.
    """
    flag = {"judge": "--judge-api-base", "model": "--api-base"}.get(
        role, "the provider's variable, such as OPENAI_BASE_URL"
    )
    return UsageError(
        f"The address of the {role} '{model}' does not answer itself, it points to {_shown(base, location)}; "
        f"redirects are not followed, so give the address that answers with {flag}."
    )


def _shown(base: str | None, location: str) -> str:
    """Where a redirect points, without what may be secret in it."""
    try:
        target = httpx.URL(base or "").join(location)
        shown = str(target.copy_with(username=None, password=None, query=None, fragment=None))
    except (httpx.InvalidURL, ValueError, TypeError):
        return "no address"
    shown = shown.removesuffix("/chat/completions").removesuffix("/audio/transcriptions")
    return f"'{shown[:LONGEST_TARGET]}'" if shown and shown.isprintable() else "no address"


def refused_parameter(names: Iterable[str], detail: str) -> str | None:
    """The parameter that a refused request was refused for, as far as the server's words name one that was sent.

    A request that is too long is another matter: the next one may be shorter.
    """
    if _LENGTH.search(detail):
        return None
    for name in names:
        words = "|".join(map(re.escape, _ALIASES.get(name, (name,))))
        # What is also an ordinary word, such as `stop`, is only meant where it is quoted.
        is_plain = "_" in name or name in ("temperature", "modalities")
        around = (r"(?<![\w-])", r"(?![\w-])") if is_plain else ("['\"`]", "['\"`]")
        if re.search(f"{around[0]}({words}){around[1]}", detail, re.IGNORECASE):
            return name
    return None


def unknown_parameter(role: str, model: str, name: str, detail: str) -> UsageError:
    """The error of a parameter that no request may have."""
    flag = f"--{role}-arg"
    if name == "response_format":
        remedy = (
            f"leave it out with {flag} response_format=null, or ask for any JSON with {flag} "
            '\'response_format={"type": "json_object"}\''
        )
    elif name == "max_tokens" and "max_completion_tokens" in detail:
        remedy = f"write {flag} max_completion_tokens=… in its place"
    elif name == "modalities":
        remedy = "leave out --output audio"
    else:
        remedy = f"leave out {flag} {name}, or give it another value"
    return UsageError(
        f"The server of the {role} '{model}' does not take '{name}' as it is sent, so every call would fail "
        f"({detail}); {remedy}."
    )


def always_refused(role: str, model: str, detail: str) -> UsageError:
    """The error of a server that has refused every request so far, without a reason that is known here."""
    return UsageError(
        f"The server of the {role} '{model}' has refused the first {MOST_IN_A_ROW} requests and answered none, the "
        f"last with: {detail}. Mend that, then run the same command again, with --retry-errors."
    )


def argument_names(arguments: dict[str, Any]) -> list[str]:
    """The parameters that a request holds: those of `extra_body` end up beside the others in it."""
    inner = arguments.get("extra_body")
    return [*arguments, *(inner if isinstance(inner, dict) else ())]
