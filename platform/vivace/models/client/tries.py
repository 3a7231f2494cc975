"""When a call is tried again, and how long is waited before: the same for every kind of client."""

from __future__ import annotations

import math
import random

from vivace_rubrics.criteria import Unscored

RETRIED = frozenset(
    {
        Unscored.TIMEOUT,
        Unscored.RATE_LIMITED,
        Unscored.SERVER_ERROR,
        Unscored.CONNECTION_CUT,
        Unscored.UNREADABLE,
        Unscored.EMPTY,
        Unscored.NO_AUDIO,
    }
)
"""Failures that another try may mend; the others would come again."""
FIRST_WAIT_S = 0.25
LONGEST_WAIT_S = 30.0
"""The longest wait between two tries that a server can ask for. One that asks for more (the rest of the day,
for a spent quota) is tried at the usual pace, and the item left unscored for a later `--retry-errors`."""
CONNECT_TRIES = 6
"""Tries to connect to a server that has answered before, in 13 seconds; then the run stops, to be resumed."""
CONTENT_FILTER_CODES = frozenset({"content_policy_violation", "content_filter"})
"""Error codes by which OpenAI and Azure say that their filter stopped a request."""
NO_CREDIT = "insufficient_quota"
"""The word by which OpenAI says with a 429 that an account has no credit; others use status 402 (RFC 9110)."""
LASTING_LIMITS = (NO_CREDIT, "Request too large")
"""Words by which OpenAI says with a 429 that waiting is in vain: no credit, or more tokens than a minute allows."""


def asked_pause(detail: str | None, retry_after_s: float | None) -> float | None:
    """The pause that a server asks for, in seconds; infinite where it says that waiting is in vain."""
    return math.inf if any(words in (detail or "") for words in LASTING_LIMITS) else retry_after_s


def pause_before_retry(failures: int, retry_after_s: float | None) -> float:
    """Seconds to wait after so many earlier failures: longer each time, or as asked within `LONGEST_WAIT_S`."""
    usual = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0**failures)
    asked = retry_after_s if retry_after_s is not None and retry_after_s <= LONGEST_WAIT_S else 0.0
    return max(usual, asked) * random.uniform(1.0, 1.25)  # never all calls at the same moment


def pause_before_connecting(failures: int) -> float:
    """Seconds to wait after so many tries in a row to which nothing answered."""
    return min(5.0, FIRST_WAIT_S * 2.0**failures)
