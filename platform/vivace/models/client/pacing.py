"""Pacing of calls, so that a provider's rate limits cost a run time and never replies.

Sources: additive increase, multiplicative decrease as in TCP's congestion control (RFC 5681, section 3.1);
`Retry-After` and status 503 (RFC 9110, section 10.2.3), status 429 (RFC 6585, section 4).
"""

from __future__ import annotations

import asyncio
import heapq
import math
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

from vivace.models.client.calls import CallRecord

PATIENCE_S = 600.0
"""So long a client goes on although every call is turned away; from then on that counts as a failure."""
PATIENT_TRIES = 25
"""So often one call may be turned away, and for as long as the longest pause, while others perhaps succeed, before
that counts as a failure."""
LONGEST_PAUSE_S = 90.0
"""The longest pause that a server can ask for: a quota per minute is renewed within it, a quota per day is not."""
FIRST_PAUSE_S = 0.25
LONGEST_OWN_PAUSE_S = 30.0
"""The longest pause that is made where the server names none; where it does, its own is kept."""
WINDOW_S = 61.0
"""A minute, and a second for calls that arrive less evenly than they were sent."""
POLL_S = 0.5
"""How often a call that waits for a moment to come looks whether the run is being stopped."""
CAUTION = 0.1
"""How much slower the calls in flight grow near the number that was too many the last time."""
REMEMBERED_CALLS = 20
"""So many earlier calls tell how many tokens the next one will take."""
CHARACTERS_OF_TEXT_PER_TOKEN = 4
CHARACTERS_OF_AUDIO_PER_TOKEN = 1300
"""Base64 of 16 kHz mono WAV at 32 tokens a second; other rates are learned from what the server counts."""
OVERLOADED = 529
"""The status of an overloaded server with Anthropic and some proxies."""

WORTH_TELLING_S = 5.0
"""A pause from which on whoever watches a run is told of it."""
TOLD_EVERY_S = 60.0
"""So rarely at most."""


class SharedPace(Protocol):
    """What several processes may spend together."""

    async def take(self, name: str, per_minute: float, amount: float) -> float:
        """Take so much of a rate: 0 where it is taken, else the seconds after which to ask again."""
        ...

    def correct(self, name: str, surplus: float) -> None:
        """Note that a call took less than was taken for it, or, below 0, more."""
        ...


_shared: ContextVar[SharedPace | None] = ContextVar("shared", default=None)
_check: ContextVar[Callable[[], None] | None] = ContextVar("check", default=None)
_tell: ContextVar[Callable[[str], None] | None] = ContextVar("tell", default=None)


@contextmanager
def waits_end_by(check: Callable[[], None], tell: Callable[[str], None] | None = None) -> Iterator[None]:
    """While a call inside waits for its turn, `check` is called now and then; what it raises ends the wait.

    Args:
        check: called while a call waits.
        tell: told in a sentence, now and then, that calls wait for a rate limit.
    """
    tokens = _check.set(check), _tell.set(tell)
    try:
        yield
    finally:
        _check.reset(tokens[0])
        _tell.reset(tokens[1])


@contextmanager
def rates_are_shared(shared: SharedPace | None) -> Iterator[None]:
    """While calls inside wait for their turn, their rates hold over all who share them; None: this process alone."""
    token = _shared.set(shared)
    try:
        yield
    finally:
        _shared.reset(token)


def request_size(messages: list[dict[str, Any]]) -> float:
    """About how many tokens a request takes: good for comparing two requests, not for counting."""
    size = 1.0
    for message in messages:
        content: str | list[dict[str, Any]] = message.get("content") or ""
        parts: list[dict[str, Any]] = [{"text": content}] if isinstance(content, str) else content
        for part in parts:
            size += len(part.get("text") or "") / CHARACTERS_OF_TEXT_PER_TOKEN
            size += len((part.get("input_audio") or {}).get("data") or "") / CHARACTERS_OF_AUDIO_PER_TOKEN
    return size


def total_tokens(calls: Sequence[CallRecord]) -> int | None:
    """The tokens of these calls, both ways; None where the server counts none."""
    counts = [count for call in calls for count in (call.input_tokens, call.output_tokens) if count is not None]
    return sum(counts) if counts else None


def is_turned_away(status: int | None, retry_after_s: float | None) -> bool:
    """Whether an answer means "not so fast" rather than "this has failed"."""
    return status in (429, OVERLOADED) or (status == 503 and retry_after_s is not None)


class CallPace:
    """How fast one client may call; shared by all its calls, in one event loop at a time.

    The calls in flight adapt: an answer that turns a call away halves them, once for all calls that were
    under way together, and answers let them grow again by about one a round trip, more slowly near the number
    that was too many the last time. A pause that the server asks for is kept by every call. Calls start in the
    order in which they came; one that was turned away keeps its place.

    Args:
        requests_per_minute: never more calls than this start within a minute.
        tokens_per_minute: never more tokens than this are asked for within a minute, as far as earlier calls
            tell; a call that takes more than that alone has a minute to itself.
        name: of what is called, by which other processes share its rates.
    """

    def __init__(
        self, requests_per_minute: float | None = None, tokens_per_minute: float | None = None, name: str = ""
    ) -> None:
        self._name = name
        self._shares = (("requests", requests_per_minute), ("tokens", tokens_per_minute))
        self._requests = _Window(requests_per_minute)
        self._tokens = _Window(tokens_per_minute)
        self._known: deque[tuple[float, float]] = deque(maxlen=REMEMBERED_CALLS)
        self._limit = math.inf
        self._turned_away_at = 0.0
        self._in_flight = 0
        self._line: list[tuple[int, asyncio.Event]] = []
        self._callers = 0
        self._paused_until = -math.inf
        self._shrinks = 0
        self._strikes = 0
        self._turned_away_since: float | None = None
        self._refused = 0
        self._told_at = -math.inf

    @property
    def limit(self) -> float:
        """The calls that may be in flight at the moment; infinite until one was turned away."""
        return self._limit

    @property
    def in_flight(self) -> int:
        """The calls under way."""
        return self._in_flight

    def caller(self) -> Caller:
        """A place in line for one call with all its tries."""
        self._callers += 1
        return Caller(self, self._callers)

    async def admit(self, number: int, size: float) -> Leave:
        """Wait until the call with this place in line may be made; `Caller.turn` is the way to ask.

        Raises:
            Exception: what the check of `waits_end_by` raises.
        """
        place = (number, asyncio.Event())
        heapq.heappush(self._line, place)
        try:
            taken: dict[str, float] = {}
            while (wait_s := self._wait_of(place, size) or await self._wait_for_others(size, taken)) > 0:
                _give_up_if_told()
                if math.isinf(wait_s):
                    await place[1].wait()
                    place[1].clear()
                else:
                    self._tell_of(wait_s)
                    await asyncio.sleep(min(wait_s, POLL_S))
            self._in_flight += 1
            self._requests.spend(_now(), 1)
            leave = Leave(size, self._shrinks, self._tokens.spend(_now(), self._expected(size)))
            leave.taken = taken.get("tokens", 0.0)
            return leave
        finally:
            self._line.remove(place)
            heapq.heapify(self._line)
            self._wake_first()

    def _wait_of(self, place: tuple[int, asyncio.Event], size: float) -> float:
        """Seconds that this place still has to wait; infinite where it is woken when something has changed."""
        if self._line[0] is not place or self._in_flight + 1 > self._limit:
            return math.inf
        now = _now()
        return max(
            self._paused_until - now,
            self._requests.wait_s(now, 1),
            self._tokens.wait_s(now, self._expected(size)),
        )

    async def _wait_for_others(self, size: float, taken: dict[str, float]) -> float:
        """Take a call's part of what all processes share; the seconds it still has to wait, 0 where it has its part.

        Args:
            size: of the request.
            taken: what the call has by now; completed.
        """
        shared = _shared.get()
        if shared is None:
            return 0.0
        for what, per_minute in self._shares:
            if per_minute is None or what in taken:
                continue
            amount = 1.0 if what == "requests" else self._expected(size) if self._known else size
            wait_s = await shared.take(f"{self._name}:{what}", per_minute, amount)
            if wait_s > 0:
                return wait_s
            taken[what] = amount
        return 0.0

    def _correct_shared(self, turn: Leave, tokens: float) -> None:
        shared = _shared.get()
        if shared is not None and turn.taken:
            shared.correct(f"{self._name}:tokens", turn.taken - tokens)

    def _tell_of(self, wait_s: float) -> None:
        """Tell whoever watches that calls wait for a rate limit, where the wait is long or was turned away often."""
        tell, now = _tell.get(), _now()
        if tell is None or now - self._told_at < TOLD_EVERY_S:
            return
        if wait_s < WORTH_TELLING_S and self._refused < PATIENT_TRIES:
            return
        self._told_at = now
        refused = f"; {self._refused} calls were turned away and are tried again" if self._refused else ""
        tell(f"calls wait {wait_s:.0f} s for a rate limit{refused}")

    def _expected(self, size: float) -> float:
        """The tokens that a call of this size will take; all there are, as long as no call has told."""
        if not self._known:
            return self._tokens.allowed
        return size * sum(tokens for _, tokens in self._known) / sum(known for known, _ in self._known)

    def _wake_first(self) -> None:
        if self._line:
            self._line[0][1].set()

    def leave(self, turn: Leave) -> None:
        """Note how a turn went, and let the next call start."""
        if turn.turned_away:
            self._slow_down(turn)
            self._tokens.correct(turn.tokens_spent, 0.0)
            self._correct_shared(turn, 0.0)
        elif turn.answered:
            self._speed_up(turn)
            tokens = turn.size if turn.tokens is None else turn.tokens
            self._known.append((turn.size, tokens))
            self._tokens.correct(turn.tokens_spent, tokens)
            self._correct_shared(turn, tokens)
        self._in_flight -= 1
        self._wake_first()

    def _speed_up(self, turn: Leave) -> None:
        self._strikes, self._turned_away_since = 0, None
        # Where nothing is held back, an answer is no sign that more calls at a time would be answered.
        is_held_back = bool(self._line) or self._in_flight + 1 > self._limit
        if turn.shrinks == self._shrinks and is_held_back:
            is_new_ground = abs(self._limit - self._turned_away_at) > 1
            self._limit += (1.0 if is_new_ground else CAUTION) / self._limit

    def _slow_down(self, turn: Leave) -> None:
        now = _now()
        self._refused += 1
        if self._turned_away_since is None:
            self._turned_away_since = now
        asked_s = turn.retry_after_s if turn.retry_after_s is not None else 0.0
        is_told_when = FIRST_PAUSE_S <= asked_s <= LONGEST_PAUSE_S
        if is_told_when:
            self._pause(now, asked_s)
        if turn.shrinks != self._shrinks:
            return  # it started before the last time, which has answered it
        were_under_way = min(self._limit, self._in_flight)
        self._limit, self._turned_away_at = max(1.0, were_under_way / 2), were_under_way
        self._shrinks += 1
        # The first time, waiting for half of the calls to end is pause enough, if there is more than one.
        pauses = self._strikes + (were_under_way < 2)
        if pauses and not is_told_when:  # a server that names a moment knows better
            self._pause(now, min(LONGEST_OWN_PAUSE_S, FIRST_PAUSE_S * 2.0 ** (pauses - 1)))
        self._strikes += 1

    def _pause(self, now: float, seconds: float) -> None:
        # Other processes may wait for the same moment.
        self._paused_until = max(self._paused_until, now + seconds * random.uniform(1.0, 1.1))

    def is_patient(self) -> bool:
        """Whether a call that is turned away now is to be tried again, however often."""
        return self._turned_away_since is not None and _now() - self._turned_away_since < PATIENCE_S


class Caller:
    """A call's place in line, which it keeps over all its tries."""

    def __init__(self, pace: CallPace, number: int) -> None:
        self._pace = pace
        self._number = number
        self._turned_away = 0
        self._turned_away_since = math.inf

    @asynccontextmanager
    async def turn(self, size: float) -> AsyncIterator[Leave]:
        """Wait for the turn to make one try of a request of this size; say in it how the try went."""
        turn = await self._pace.admit(self._number, size)
        try:
            yield turn
        finally:
            self._pace.leave(turn)
            if turn.turned_away:
                self._turned_away += 1
                self._turned_away_since = min(self._turned_away_since, _now())

    def is_free(self, turn: Leave) -> bool:
        """Whether this try, now over, was only turned away and does not count: the next turn comes when it may.

        It counts where the server asks for a longer pause than `LONGEST_PAUSE_S`, as for a spent quota, and
        where patience has come to its end.
        """
        return (
            turn.turned_away
            and (turn.retry_after_s or 0.0) <= LONGEST_PAUSE_S
            and (self._turned_away <= PATIENT_TRIES or _now() - self._turned_away_since < LONGEST_PAUSE_S)
            and self._pace.is_patient()
        )


@dataclass
class _Spent:
    """What one call took of a window, and when."""

    moment: float
    amount: float
    is_over: bool = False
    """Whether its minute has passed."""


@dataclass
class Leave:
    """Leave to make one try."""

    size: float
    shrinks: int
    """How often the pace had slowed down when it started."""
    tokens_spent: _Spent
    answered: bool = field(default=False, init=False)
    turned_away: bool = field(default=False, init=False)
    retry_after_s: float | None = field(default=None, init=False)
    tokens: int | None = field(default=None, init=False)
    taken: float = field(default=0.0, init=False)
    """Tokens that were taken of what processes share."""

    def ended(self, status: int | None, retry_after_s: float | None, tokens: int | None) -> None:
        """Note how the try went.

        Args:
            status: of HTTP, or the one that comes nearest; None where nothing was answered.
            retry_after_s: the pause that the server asks for; infinite for a quota that is spent for good.
            tokens: both ways, as the server counts; None where it does not.
        """
        self.turned_away = is_turned_away(status, retry_after_s)
        self.answered = status == 200
        self.retry_after_s = retry_after_s
        self.tokens = tokens


class _Window:
    """What may be spent within any one minute; everything where no limit is given."""

    def __init__(self, allowed: float | None) -> None:
        self.allowed = math.inf if allowed is None else max(1.0, allowed)
        # Half a call a minute is one in two.
        self._seconds = WINDOW_S / min(1.0, allowed or 1.0)
        self._spent: deque[_Spent] = deque()
        self._total = 0.0

    def wait_s(self, now: float, amount: float) -> float:
        """Seconds until so much may be spent; more than is ever allowed at once waits for an empty window."""
        while self._spent and self._spent[0].moment + self._seconds <= now:
            over = self._spent.popleft()
            over.is_over = True
            self._total -= over.amount
        excess = self._total + amount - self.allowed
        wait_s = 0.0
        for spent in self._spent:
            if not excess > 0:
                break
            excess -= spent.amount
            wait_s = spent.moment + self._seconds - now
        return wait_s

    def spend(self, now: float, amount: float) -> _Spent:
        """Note what is spent, as far as is known by now."""
        spent = _Spent(now, amount)
        if not math.isinf(self.allowed):
            self._spent.append(spent)
            self._total += amount
        return spent

    def correct(self, spent: _Spent, amount: float) -> None:
        """Replace what was noted by what it came to."""
        if not math.isinf(self.allowed) and not spent.is_over:
            self._total += amount - spent.amount
            spent.amount = amount


def _give_up_if_told() -> None:
    check = _check.get()
    if check is not None:
        check()


def _now() -> float:
    return asyncio.get_running_loop().time()
