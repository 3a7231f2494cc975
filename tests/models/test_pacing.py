"""Rate limits are kept to and waited out: none is overstepped, nothing is starved, and a stop is not held up."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support import realtime_server
from support.chat_server import Answer, Call, ChatServer, chat_server, verdict
from support.datasets import conversation_rows, write_jsonl
from support.program import start_vivace
from support.virtual_time import run_in_virtual_time
from vivace.errors import UnreachableError
from vivace.models.adapters.litellm import LiteLLMAsker, LiteLLMSystem
from vivace.models.base import ModelReply, Prompt, SpokenTurn
from vivace.models.client import pacing
from vivace.models.client.calls import CallRecord, ChatOptions, recorded_calls
from vivace.models.client.pacing import CallPace, request_size, waits_end_by
from vivace_rubrics.criteria import Unscored

PROMPT = Prompt("c", [(SpokenTurn(None, "hello"), None)])


class Stop(Exception):
    """What a test ends waiting with."""


@dataclass
class Provider:
    """Answers calls in virtual time, and turns away those beyond what it allows.

    Args:
        at_a_time: the calls it serves side by side.
        retry_after_s: the pause that it asks for, if it asks for one.
        answers: whether it answers at all, given the moment.
    """

    at_a_time: int
    seconds: float = 1.0
    retry_after_s: float | None = None
    answers: Callable[[float], bool] = lambda _: True
    started: list[float] = field(default_factory=list)
    turned_away: int = 0
    busy: int = 0

    async def call(self, turn: pacing.Leave, tokens: int | None = 10) -> None:
        """One try."""
        now = asyncio.get_running_loop().time()
        self.started.append(now)
        if self.busy >= self.at_a_time or not self.answers(now):
            self.turned_away += 1
            turn.ended(429, self.retry_after_s, None)
            return
        self.busy += 1
        await asyncio.sleep(self.seconds)
        self.busy -= 1
        turn.ended(200, None, tokens)


async def persist(pace: CallPace, provider: Provider, *, size: float = 1.0, tokens: int | None = 10) -> bool:
    """Make a call until it is answered; False where that is given up."""
    caller = pace.caller()
    while True:
        async with caller.turn(size) as turn:
            assert pace.in_flight <= pace.limit
            await provider.call(turn, tokens)
        if turn.answered:
            return True
        if not caller.is_free(turn):
            return False


def most_within(moments: list[float], seconds: float) -> int:
    """The most moments that lie in any half-open window of this length."""
    return max(sum(start <= moment < start + seconds for moment in moments) for start in moments)


@settings(max_examples=40, deadline=None)
@given(
    per_minute=st.floats(0.3, 40),
    arrivals=st.lists(st.floats(0, 200), min_size=1, max_size=80),
    seconds=st.floats(0, 30),
)
def test_no_minute_sees_more_requests_than_are_allowed_and_every_call_is_made(
    per_minute: float, arrivals: list[float], seconds: float
) -> None:
    provider = Provider(at_a_time=1000, seconds=seconds)

    async def arrive(pace: CallPace, moment: float) -> bool:
        await asyncio.sleep(moment)
        return await persist(pace, provider)

    async def work() -> list[bool]:
        pace = CallPace(requests_per_minute=per_minute)
        return await asyncio.gather(*(arrive(pace, moment) for moment in arrivals))

    assert all(run_in_virtual_time(work()))
    assert len(provider.started) == len(arrivals)
    if per_minute >= 1:
        assert most_within(provider.started, 60.0) <= per_minute
    else:
        assert most_within(provider.started, 60.0 / per_minute) == 1


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(1, 300), min_size=2, max_size=40), per_minute=st.integers(50, 1000))
def test_no_minute_sees_more_tokens_than_are_allowed(sizes: list[int], per_minute: int) -> None:
    """Three tokens for each unit of size: what the first call tells holds for the others."""
    spent: list[tuple[float, int]] = []

    async def call(pace: CallPace, size: int) -> None:
        async with pace.caller().turn(size) as turn:
            spent.append((asyncio.get_running_loop().time(), 3 * size))
            await asyncio.sleep(2)
            turn.ended(200, None, 3 * size)

    async def work() -> None:
        pace = CallPace(tokens_per_minute=per_minute)
        await asyncio.gather(*(call(pace, size) for size in sizes))

    run_in_virtual_time(work())
    assert len(spent) == len(sizes)
    for start, first in spent:
        within = [tokens for moment, tokens in spent if start <= moment < start + 60]
        assert sum(within) <= max(per_minute, first)


def test_a_call_that_takes_more_tokens_than_a_minute_allows_is_made_all_the_same() -> None:
    provider = Provider(at_a_time=10)

    async def work() -> list[bool]:
        pace = CallPace(tokens_per_minute=100)
        return await asyncio.gather(*(persist(pace, provider, size=500, tokens=500) for _ in range(3)))

    assert run_in_virtual_time(work()) == [True] * 3
    assert most_within(provider.started, 60) == 1


def test_a_server_that_counts_no_tokens_is_asked_by_the_size_of_requests() -> None:
    provider = Provider(at_a_time=10)

    async def work() -> None:
        pace = CallPace(tokens_per_minute=100)
        await asyncio.gather(*(persist(pace, provider, size=25, tokens=None) for _ in range(9)))

    run_in_virtual_time(work())
    assert most_within(provider.started, 60) == 4


def test_calls_that_are_turned_away_use_up_no_tokens() -> None:
    provider = Provider(at_a_time=10, answers=lambda now: now > 0)

    async def work() -> float:
        pace = CallPace(tokens_per_minute=100)
        await persist(pace, provider, tokens=100)
        return asyncio.get_running_loop().time()

    assert run_in_virtual_time(work()) < 10


@settings(max_examples=30, deadline=None)
@given(
    at_a_time=st.integers(1, 40),
    concurrency=st.integers(1, 64),
    retry_after_s=st.sampled_from([None, 0.0, 2.0, 60.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_whatever_a_provider_serves_at_a_time_all_calls_are_answered(
    at_a_time: int, concurrency: int, retry_after_s: float | None, seed: int
) -> None:
    random.seed(seed)
    provider = Provider(at_a_time, retry_after_s=retry_after_s)

    async def work() -> list[bool]:
        pace = CallPace()
        slots = asyncio.Semaphore(concurrency)

        async def item() -> bool:
            async with slots:
                return await persist(pace, provider)

        return await asyncio.gather(*(item() for _ in range(150)))

    assert all(run_in_virtual_time(work()))
    if concurrency <= at_a_time:
        assert provider.turned_away == 0


def test_never_more_calls_are_started_than_the_limit_allows() -> None:
    """The limit halves once for a whole burst that was turned away, and grows back with answers."""
    limits: list[float] = []

    async def work() -> CallPace:
        pace = CallPace()
        callers = [pace.caller() for _ in range(16)]

        async def turned_away(caller: pacing.Caller) -> None:
            async with caller.turn(1) as turn:
                await asyncio.sleep(1)
                turn.ended(429, None, None)

        async def answered(caller: pacing.Caller) -> None:
            async with caller.turn(1) as turn:
                limits.append(pace.limit)
                assert pace.in_flight <= pace.limit
                await asyncio.sleep(1)
                turn.ended(200, None, 1)

        await asyncio.gather(*map(turned_away, callers))
        assert pace.limit == 8
        await asyncio.gather(*(answered(pace.caller()) for _ in range(1000)))
        return pace

    pace = run_in_virtual_time(work())
    assert pace.limit > 30
    assert limits == sorted(limits)


@pytest.mark.parametrize("status", [500, 502, 503, 408, 400, 401, None])
def test_other_failures_do_not_slow_a_client_down(status: int | None) -> None:
    async def work() -> float:
        pace = CallPace()
        async with pace.caller().turn(1) as turn:
            turn.ended(status, None, None)
        with pytest.raises(ValueError):
            async with pace.caller().turn(1):
                raise ValueError
        assert pace.in_flight == 0
        return pace.limit

    assert run_in_virtual_time(work()) == float("inf")


@pytest.mark.parametrize(("status", "retry_after_s"), [(429, None), (529, None), (503, 3.0)])
def test_an_overloaded_server_slows_a_client_down(status: int, retry_after_s: float | None) -> None:
    async def work() -> tuple[float, bool]:
        pace = CallPace()
        caller = pace.caller()
        async with caller.turn(1) as turn:
            turn.ended(status, retry_after_s, None)
        return pace.limit, caller.is_free(turn)

    assert run_in_virtual_time(work()) == (1.0, True)


def test_a_pause_that_a_server_asks_for_is_kept_by_every_call() -> None:
    provider = Provider(at_a_time=100, retry_after_s=20.0, answers=lambda now: now >= 20)

    async def work() -> None:
        pace = CallPace()
        first = asyncio.create_task(persist(pace, provider))
        await asyncio.sleep(1)
        await asyncio.gather(first, *(persist(pace, provider) for _ in range(10)))

    run_in_virtual_time(work())
    assert provider.turned_away == 1
    assert provider.started[0] == 0
    assert min(provider.started[1:]) >= 20


def test_a_short_pause_that_a_server_names_does_not_grow() -> None:
    """Blocked for a minute, asking for a second each time: ten calls are through soon after, none is given up."""
    provider = Provider(at_a_time=100, seconds=0.1, retry_after_s=1.0, answers=lambda now: now >= 60)

    async def work() -> tuple[list[bool], float]:
        pace = CallPace()
        through = await asyncio.gather(*(persist(pace, provider) for _ in range(10)))
        return through, asyncio.get_running_loop().time()

    through, ended = run_in_virtual_time(work())
    assert all(through) and ended < 65


@pytest.mark.parametrize("retry_after_s", [1.0, 20.0])
def test_whoever_watches_is_told_of_a_rate_limit_now_and_then(retry_after_s: float) -> None:
    provider = Provider(at_a_time=100, retry_after_s=retry_after_s, answers=lambda now: now >= 80)
    told: list[str] = []

    async def work() -> None:
        pace = CallPace()
        with waits_end_by(lambda: None, told.append):
            await asyncio.gather(*(persist(pace, provider) for _ in range(10)))

    run_in_virtual_time(work())
    assert 1 <= len(told) <= 2
    assert all("rate limit" in sentence and "turned away" in sentence for sentence in told)


def test_a_call_that_was_turned_away_goes_before_those_that_came_later() -> None:
    order: list[int] = []

    async def work() -> None:
        pace = CallPace()

        async def item(number: int) -> None:
            caller = pace.caller()
            async with caller.turn(1) as turn:
                turn.ended(429 if number == 0 else 200, 5.0 if number == 0 else None, None)
            if number == 0:
                async with caller.turn(1) as turn:
                    turn.ended(200, None, None)
            order.append(number)

        first = asyncio.create_task(item(0))
        await asyncio.sleep(1)
        await asyncio.gather(first, *map(item, range(1, 6)))

    run_in_virtual_time(work())
    assert order == list(range(6))


def test_a_client_that_nothing_is_answered_gives_up_after_its_patience_and_then_soon() -> None:
    provider = Provider(at_a_time=0)

    async def work() -> tuple[float, float]:
        pace = CallPace()
        loop = asyncio.get_running_loop()
        results = await asyncio.gather(*(persist(pace, provider) for _ in range(8)))
        first_ends = loop.time()
        assert not any(results)
        assert not await persist(pace, provider)
        return first_ends, loop.time() - first_ends

    patience, next_one = run_in_virtual_time(work())
    assert pacing.PATIENCE_S <= patience < 2 * pacing.PATIENCE_S
    assert next_one <= 1.1 * pacing.LONGEST_OWN_PAUSE_S


def test_one_call_that_is_always_turned_away_holds_up_the_others_only_for_a_while() -> None:
    answered: list[int] = []

    async def work() -> bool:
        pace = CallPace()

        async def item(number: int) -> bool:
            caller = pace.caller()
            while True:
                async with caller.turn(1) as turn:
                    await asyncio.sleep(1)
                    turn.ended(429 if number == 3 else 200, None, None)
                if turn.answered:
                    answered.append(number)
                    return True
                if not caller.is_free(turn):
                    return False

        return sum(await asyncio.gather(*map(item, range(30)))) == 29

    assert run_in_virtual_time(work())
    assert len(answered) == 29


@pytest.mark.parametrize("retry_after_s", [3600.0, float("inf")])
def test_a_quota_that_is_spent_for_long_is_not_waited_for(retry_after_s: float) -> None:
    async def work() -> tuple[bool, float]:
        pace = CallPace()
        caller = pace.caller()
        async with caller.turn(1) as turn:
            turn.ended(429, retry_after_s, None)
        async with pace.caller().turn(1):
            return caller.is_free(turn), asyncio.get_running_loop().time()

    is_free, waited = run_in_virtual_time(work())
    assert not is_free
    assert waited < 1


@pytest.mark.parametrize("pause_s", [80.0, None], ids=["a pause", "a full minute"])
def test_a_stop_ends_every_wait_within_a_second(pause_s: float | None) -> None:
    async def work() -> float:
        loop = asyncio.get_running_loop()
        stop_at = 5.0

        def check() -> None:
            if loop.time() >= stop_at:
                raise Stop

        async def item(pace: CallPace) -> None:
            with waits_end_by(check):
                async with pace.caller().turn(1):
                    pass

        pace = CallPace(requests_per_minute=1)
        async with pace.caller().turn(1) as turn:
            turn.ended(429 if pause_s else 200, pause_s, None)
        results = await asyncio.gather(*(item(pace) for _ in range(20)), return_exceptions=True)
        assert all(isinstance(result, Stop) for result in results)
        assert pace.in_flight == 0
        return loop.time() - stop_at

    assert run_in_virtual_time(work()) <= 1


def test_a_call_that_is_dropped_while_it_waits_leaves_the_line() -> None:
    async def work() -> bool:
        pace = CallPace(requests_per_minute=1)
        provider = Provider(at_a_time=10)
        await persist(pace, provider)
        dropped = asyncio.create_task(persist(pace, provider))
        behind = asyncio.create_task(persist(pace, provider))
        await asyncio.sleep(1)
        dropped.cancel()
        return await behind

    assert run_in_virtual_time(work())


def test_the_size_of_a_request_grows_with_text_and_sound() -> None:
    def audio(length: int) -> dict[str, Any]:
        return {"type": "input_audio", "input_audio": {"data": "A" * length, "format": "wav"}}

    texts = [request_size([{"role": "user", "content": "x" * length}]) for length in (0, 4, 400)]
    sounds = [request_size([{"role": "user", "content": [audio(length)]}]) for length in (0, 1300, 130_000)]
    assert texts == sounds == [1, 2, 101]
    assert request_size([{"role": "assistant", "content": None}]) == 1


# Clients and whole runs


def replies_of(server: ChatServer, count: int, *, retries: int = 0) -> tuple[list[ModelReply], list[CallRecord]]:
    """So many replies at a time of one model behind this server, and the record of all calls."""

    async def ask() -> tuple[list[ModelReply], list[CallRecord]]:
        system = LiteLLMSystem("openai/m", {}, ChatOptions(server.base, retries=retries))
        try:
            with recorded_calls() as calls:
                return await asyncio.gather(*(system.reply(PROMPT) for _ in range(count))), calls
        finally:
            await system.close()

    return asyncio.run(ask())


class Crowded:
    """Answers so many calls at a time, and turns the others away."""

    def __init__(self, at_a_time: int, answer: Callable[[Call], Answer], turned_away: Answer) -> None:
        self.turned_away = 0
        self._places = threading.Semaphore(at_a_time)
        self._answer = answer
        self._refusal = turned_away

    def __call__(self, call: Call) -> Answer:
        """What the server does."""
        if not self._places.acquire(blocking=False):
            self.turned_away += 1
            return self._refusal
        try:
            time.sleep(0.05)
            return self._answer(call)
        finally:
            self._places.release()


@pytest.mark.parametrize(
    "refusal",
    [Answer(status=429), Answer(status=429, headers={"retry-after": "0.2"}), Answer(status=529)],
    ids=["429", "429 with a pause", "529"],
)
def test_what_a_server_turns_away_costs_no_reply_even_without_retries(refusal: Answer) -> None:
    crowded = Crowded(3, lambda _: Answer("Yes."), refusal)
    with chat_server(crowded) as server:
        replies, calls = replies_of(server, 40)
    assert [reply.text for reply in replies] == ["Yes."] * 40
    assert crowded.turned_away > 0
    assert len(calls) == len(server.calls) == 40 + crowded.turned_away


def test_a_failure_that_is_none_of_pace_is_tried_as_often_as_was_asked_for() -> None:
    with chat_server(Answer(status=500)) as server:
        [reply], _ = replies_of(server, 1, retries=1)
    assert reply.unscored is Unscored.SERVER_ERROR
    assert len(server.calls) == 2


def test_a_limit_that_no_waiting_mends_is_not_waited_out() -> None:
    body = json.dumps({"error": {"message": "Request too large for gpt-audio on tokens per min (TPM)"}}).encode()
    with chat_server(Answer(status=429, raw=body)) as server:
        [reply], _ = replies_of(server, 1, retries=1)
    assert reply.unscored is Unscored.RATE_LIMITED
    assert len(server.calls) == 2


@pytest.mark.parametrize("status", [429, 402])
def test_an_account_without_credit_stops_the_run_at_once(status: int) -> None:
    body = json.dumps({"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}).encode()
    with (
        chat_server(Answer(status=status, raw=body)) as server,
        pytest.raises(UnreachableError, match=r"no credit left .*; top it up"),
    ):
        replies_of(server, 1, retries=3)
    assert len(server.calls) == 1


def test_judges_keep_to_a_pace_of_their_own() -> None:
    """Thirty calls under a limit of ten a minute would take two minutes; here only ten are started."""

    async def ask(base: str) -> None:
        asker = LiteLLMAsker("openai/j", {}, ChatOptions(base, requests_per_minute=10))
        waiting = {asyncio.create_task(asker.ask("Is it so?")) for _ in range(30)}
        while len(waiting) > 20:
            _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(0.3)
        for call in waiting:
            call.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await asker.close()

    with chat_server(verdict()) as server:
        asyncio.run(ask(server.base))
    assert len(server.calls) == 10


def test_the_realtime_adapter_waits_out_its_limits_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from vivace.models.adapters.openai_realtime import OpenAIRealtimeSystem

    monkeypatch.setattr(pacing, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    limited = {"error": {"type": "tokens", "code": "rate_limit_exceeded", "message": "slow down"}}
    answers = iter([realtime_server.Answer(status="failed", details=limited)] * 4)

    async def ask(base: str) -> ModelReply:
        system = OpenAIRealtimeSystem("gpt-realtime", {}, ChatOptions(base, retries=0))
        try:
            return await system.reply(PROMPT)
        finally:
            await system.close()

    with realtime_server.realtime_server(lambda _: next(answers, realtime_server.Answer("Yes."))) as server:
        reply = asyncio.run(ask(server.base))
    assert reply.text == "Yes."


def run_arguments(tmp_path: Path, base: str, conversations: int) -> list[object]:
    data = write_jsonl(tmp_path / "data.jsonl", conversation_rows(conversations, criteria=3, audio=False))
    return [
        "run", "audio-multichallenge", "--data", data, "--home", tmp_path / "home", "--format", "json",
        "--model", "litellm:openai/m", "--api-base", base,
        "--judge", "litellm:openai/j", "--judge-api-base", base,
    ]  # fmt: skip


def answer_or_verdict(call: Call) -> Answer:
    return verdict() if call.model == "j" else Answer("Hello there.")


def test_a_run_against_a_crowded_server_gets_every_reply_and_every_verdict(
    tmp_path: Path, program: Callable[..., Any]
) -> None:
    crowded = Crowded(4, answer_or_verdict, Answer(status=429))
    with chat_server(crowded) as server:
        done = program(*run_arguments(tmp_path, server.base, 40), "--concurrency", 32, "--retries", 0)
    assert done.code == 0, done.err
    [row] = json.loads(done.out)
    assert (row["coverage"], row["ars"]) == (1.0, 1.0)
    assert crowded.turned_away > 0
    with sqlite3.connect(tmp_path / "home" / "vivace.db") as database:
        recorded = dict(database.execute("select coalesce(error, 'answered'), count(*) from attempt group by 1"))
    assert recorded == {"answered": 160, "rate_limited": crowded.turned_away}


def test_ctrl_c_ends_a_run_that_waits_for_its_next_minute(tmp_path: Path) -> None:
    with chat_server(answer_or_verdict) as server:
        running = start_vivace(*run_arguments(tmp_path, server.base, 6), "--requests-per-minute", 2)
        while len([call for call in server.calls if call.model == "j"]) < 6:
            assert running.poll() is None, running.communicate()
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=50)
        asked = len([call for call in server.calls if call.model == "m"])
        assert running.returncode == 130, err
        assert "Traceback" not in err
    assert asked == 2
    with sqlite3.connect(tmp_path / "home" / "vivace.db") as database:
        assert database.execute("select count(*) from reply where unscored_reason is not null").fetchall() == [(0,)]
