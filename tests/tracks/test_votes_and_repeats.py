"""Repeats, votes and ensembles in whole runs: everything is recorded once, in its place, and resumed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from support.chat_server import Answer, Call, ChatServer, chat_server, verdict
from support.datasets import conversation_rows, write_jsonl
from support.program import vivace
from vivace.errors import UnreachableError
from vivace.store import tables
from vivace.store.database import Database
from vivace.tracks.dialogue.estimate import has_price

CONVERSATIONS, CRITERIA = 3, 2


@contextmanager
def rows(url: str) -> Iterator[Callable[[Any], list[Any]]]:
    """The rows that a query finds."""
    database = Database(url)
    with database.read() as session:
        yield lambda query: list(session.execute(query))
    database.close()


class Answers:
    """A model that counts its replies, and judges that say what a table says: name → verdicts in turn."""

    def __init__(self, **judges: list[Answer]) -> None:
        self._judges = judges
        self._asked: Counter[str] = Counter()

    def __call__(self, call: Call) -> Answer:
        name = call.model
        self._asked[name] += 1
        if name == "talker":
            return Answer(f"yes, reply {self._asked[name]}")
        answers = self._judges[name]
        return answers[(self._asked[name] - 1) % len(answers)]


def run(server: ChatServer, folder: Path, url: str, *more: object) -> Any:
    """`vivace run` on three conversations of two criteria each."""
    data = write_jsonl(folder / "data.jsonl", conversation_rows(CONVERSATIONS, criteria=CRITERIA, audio=False))
    return vivace(
        "run", "audio-multichallenge", "--data", data, "--model", "litellm:openai/talker", "--api-base", server.base,
        *([] if "checks" in more else ["--judge-api-base", server.base]),
        "--concurrency", 1, "--home", folder / "home", "--database", url,
        "--format", "json", *more,
    )  # fmt: skip


def test_each_repeat_is_a_reply_of_its_own_with_its_own_verdicts(database_url: str, tmp_path: Path) -> None:
    with chat_server(Answers()) as server:
        done = run(server, tmp_path, database_url, "--repeats", 3, "--judge", "checks")
        assert done.returncode == 0, done.stderr
        assert len(server.calls) == 3 * CONVERSATIONS
        again = run(server, tmp_path, database_url, "--repeats", 3, "--judge", "checks")
        assert len(server.calls) == 3 * CONVERSATIONS and again.stdout == done.stdout
        other = run(server, tmp_path, database_url, "--judge", "checks")
        assert json.loads(other.stdout)[0]["run"] != json.loads(done.stdout)[0]["run"], (
            "another number is another run"
        )
    with rows(database_url) as found:
        run_id = json.loads(done.stdout)[0]["run"]
        replies = found(select(tables.Reply.repeat, tables.Reply.text).where(tables.Reply.run_id == run_id))
        assert Counter(repeat for repeat, _ in replies) == {0: 3, 1: 3, 2: 3}
        assert len({text for _, text in replies}) == 9, "every repeat was generated anew"
        judged = found(select(tables.Verdict.reply_id).join(tables.Reply).where(tables.Reply.run_id == run_id))
        assert Counter(Counter(judged).values()) == {CRITERIA: 9}
    (row,) = json.loads(done.stdout)
    assert (row["repeats"], row["n"], row["criteria"], row["met"]) == (3, 3, 18, 9)


def test_a_killed_item_between_repeats_is_resumed_where_it_stopped(database_url: str, tmp_path: Path) -> None:
    replies = Counter[str]()

    def behave(call: Call) -> Answer:
        replies["n"] += 1
        return Answer("yes") if replies["n"] != 5 else Answer(status=402)

    with chat_server(behave) as server:
        first = run(server, tmp_path, database_url, "--repeats", 2, "--judge", "checks")
        assert first.returncode == UnreachableError.exit_code and "no credit left" in first.stderr
        done = run(server, tmp_path, database_url, "--repeats", 2, "--judge", "checks")
        assert done.returncode == 0, done.stderr
        assert len(server.calls) == 2 * CONVERSATIONS + 1


def test_the_majority_of_an_ensemble_decides_and_single_votes_are_kept(database_url: str, tmp_path: Path) -> None:
    judges = "litellm:openai/strict,litellm:openai/kind,litellm:openai/fickle"
    behave = Answers(talker=[], strict=[verdict(False)], kind=[verdict(True)], fickle=[verdict(True), verdict(False)])
    with chat_server(behave) as server:
        done = run(server, tmp_path, database_url, "--judge", judges)
        assert done.returncode == 0, done.stderr
        (row,) = json.loads(done.stdout)
        assert (row["votes"], row["met"], row["criteria"]) == (3, 3, 6)
        calls = len(server.calls)
        assert calls == CONVERSATIONS * (1 + 3 * CRITERIA)
        turned = ",".join(reversed(judges.split(",")))
        again = run(server, tmp_path, database_url, "--judge", turned)
        assert json.loads(again.stdout)[0]["judging"] == row["judging"], "the order of its members is no difference"
        assert len(server.calls) == calls
    with rows(database_url) as found:
        votes = found(select(tables.Verdict.vote, tables.Verdict.met))
        assert Counter(votes) == {
            (0, True): 3, (0, False): 3, (1, False): 6, (2, True): 6, (3, True): 3, (3, False): 3,
        }  # fmt: skip
        names = {name for (name,) in found(select(tables.Judge.name))}
        assert {"openai/strict", "openai/kind", "openai/fickle"} < names


def test_machine_checks_can_sit_in_an_ensemble(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/x.db"
    with chat_server(Answers(talker=[], kind=[verdict(True)])) as server:
        done = run(server, tmp_path, url, "--judge", "checks,litellm:openai/kind")
        assert done.returncode == 3, done.stderr
    (row,) = json.loads(done.stdout)
    assert (row["met"], row["unscored"]) == (3, 3), "checks say yes, no, yes, no, …; a tie is no majority"


def test_votes_of_one_judge_without_a_majority_are_unscored(database_url: str, tmp_path: Path) -> None:
    behave = Answers(talker=[], judge=[verdict(True), verdict(False)])
    with chat_server(behave) as server:
        done = run(server, tmp_path, database_url, "--judge", "litellm:openai/judge", "--votes", 2)
        assert done.returncode == 3 and "6 no_majority" in done.stderr
        calls = len(server.calls)
        again = run(server, tmp_path, database_url, "--judge", "litellm:openai/judge", "--votes", 2, "--retry-errors")
        assert again.returncode == 3 and len(server.calls) == calls, (
            "all votes were given; asking on would be fishing"
        )


def test_only_the_votes_that_are_missing_are_asked_for_again(database_url: str, tmp_path: Path) -> None:
    asked = Counter[str]()

    def behave(call: Call) -> Answer:
        if call.model == "talker":
            return Answer("yes")
        asked["n"] += 1
        return Answer(status=400) if asked["n"] in (2, 3) else verdict(True)

    command = ("--judge", "litellm:openai/judge", "--votes", 3)
    with chat_server(behave) as server:
        done = run(server, tmp_path, database_url, *command)
        assert done.returncode == 3 and "1 no_majority" in done.stderr, done.stderr
        before = len(server.calls)
        again = run(server, tmp_path, database_url, *command, "--retry-errors")
        assert again.returncode == 0, again.stderr
        assert len(server.calls) - before == 2
    with rows(database_url) as found:
        decisions = found(select(tables.Verdict.met, tables.Verdict.explanation).where(tables.Verdict.vote == 0))
        assert {tuple(decision) for decision in decisions} == {(True, "3 of 3 votes say met, 0 not met.")}


def test_recorded_repeats_are_judged_again_all_of_them(database_url: str, tmp_path: Path) -> None:
    with chat_server(Answers(talker=[], judge=[verdict(True)])) as server:
        first = run(server, tmp_path, database_url, "--repeats", 2, "--judge", "checks")
        run_id = json.loads(first.stdout)[0]["run"]
        before = len(server.calls)
        done = vivace(
            "judge", "run", run_id, "--judge", "litellm:openai/judge", "--judge-api-base", server.base, "--votes", 2,
            "--home", tmp_path / "home", "--database", database_url, "--format", "json",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert len(server.calls) - before == 2 * 2 * CONVERSATIONS * CRITERIA
        (row,) = json.loads(done.stdout)
        assert (row["repeats"], row["votes"], row["met"]) == (2, 2, 12)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--votes", 3, "--judge", "checks"], "leave out --votes"),
        (["--judge", "litellm:openai/a,litellm:openai/a"], "name one twice"),
        (["--judge", "litellm:openai/a,"], "Unknown judge ''"),
        (["--price", "cheap", "--judge", "checks"], "write two numbers"),
        (["--repeats", 0, "--judge", "checks"], "'repeats'"),
        (["--repeats", 101, "--judge", "checks"], "'repeats'"),
    ],
)
def test_senseless_requests_are_refused(more: list[object], sentence: str, tmp_path: Path) -> None:
    with chat_server() as server:
        done = run(server, tmp_path, f"sqlite:///{tmp_path}/x.db", *more)
        assert done.returncode == 2 and sentence in done.stderr and done.stderr.count("\n") <= 4, done.stderr
        assert server.calls == []


def test_the_cost_cap_stops_the_run_and_a_higher_one_resumes_it(database_url: str, tmp_path: Path) -> None:
    def run_capped(*more: object) -> Any:
        # A name on the price list: a gateway's bill is its provider's.
        return run(server, tmp_path, database_url, "--model", "litellm:openai/gpt-audio", "--judge", "checks", *more)

    with chat_server(Answer("yes")) as server:
        first = run_capped("--max-cost", 0.0001)
        assert first.returncode == 3 and "cost cap" in first.stderr and "--max-cost" in first.stderr, first.stderr
        assert first.stdout == "" and 0 < len(server.calls) < CONVERSATIONS
        made = len(server.calls)
        again = run_capped("--max-cost", 0.0001)
        assert again.returncode == 3 and len(server.calls) == made, "what was spent before counts, too"
        done = run_capped("--max-cost", 1)
        assert done.returncode == 0, done.stderr
        assert len(server.calls) == CONVERSATIONS, "and nothing is paid for twice"


def test_a_cap_that_cannot_be_kept_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    with chat_server() as server:
        for more, unknown in (
            (("--judge", "checks"), ["the model 'litellm:openai/talker'", "--price"]),
            (("--price", "1,2", "--judge", "litellm:openai/j", "--judge-api-base", server.base),
             ["the judge 'litellm:openai/j'", "--judge-price"]),
            (("--price", "1,2", "--judge", "litellm:openai/j,checks", "--dry-run"), ["the judge 'litellm:openai/j'"]),
        ):  # fmt: skip
            done = run(server, tmp_path, f"sqlite:///{tmp_path}/x.db", *more, "--max-cost", 1)
            assert done.returncode == 2 and all(words in done.stderr for words in unknown), done.stderr
            assert "'checks'" not in done.stderr
        assert server.calls == []


@pytest.mark.parametrize(
    ("target", "known"),
    [
        ("replay:a.jsonl", True), ("checks", True), ("local:folder", True), ("litellm:openai/gpt-audio", True),
        ("litellm:openai/o4-mini", True), ("litellm:openrouter/any/thing", True),
        ("litellm:gemini/gemini-2.5-flash", True), ("litellm:openai/whisper-1", True),
        ("openai-realtime:gpt-realtime", True), ("litellm:openai/mine", False), ("litellm:hosted_vllm/mine", False),
    ],
)  # fmt: skip
def test_prices_are_known_or_not(target: str, known: bool) -> None:
    assert has_price(target) is known


def test_a_cost_that_leaves_calls_out_says_so(database_url: str, tmp_path: Path) -> None:
    def answer(call: Call) -> Answer:
        return verdict() if "judge" in call.model else Answer("yes")

    with chat_server(answer) as server:
        more = ("--model", "litellm:openai/gpt-audio", "--judge", "litellm:openai/judge")
        (row,) = json.loads(run(server, tmp_path, database_url, *more).stdout)
        accounts = row["accounting"]
        assert accounts["generate"]["unpriced"] == 0 and accounts["generate"]["cost_usd"] > 0
        assert row["unpriced_calls"] == accounts["judge"]["unpriced"] == accounts["judge"]["calls"] > 0
        board = vivace("leaderboard", "--home", tmp_path / "home", "--database", database_url)
        priced = run(server, tmp_path, database_url, *more, "--judge-price", "1,1", "--force")
    assert "≥ $0.0" in board.stdout, board.stdout
    assert json.loads(priced.stdout)[0]["unpriced_calls"] == 0


def test_a_price_of_ones_own_counts_for_the_cap(tmp_path: Path) -> None:
    """The server counts 11 tokens in and 7 out: a tenth of a cent a call at these prices."""
    url = f"sqlite:///{tmp_path}/x.db"
    with chat_server(Answer("yes")) as server:
        more = ("--judge", "checks", "--price", "50,64.285715")
        done = run(server, tmp_path, url, *more, "--max-cost", 0.0015)
        assert done.returncode == 3 and "$0.0020 of $0.0015" in done.stderr, done.stderr
        assert len(server.calls) == 2
        done = run(server, tmp_path, url, *more, "--max-cost", 1)
        assert json.loads(done.stdout)[0]["cost_usd"] == pytest.approx(0.003, rel=1e-6)


def test_too_many_failed_calls_stop_the_run(database_url: str, tmp_path: Path) -> None:
    with chat_server(Answer(status=500)) as server:
        done = run(server, tmp_path, database_url, "--judge", "checks", "--retries", 0, "--max-errors", 2)
        assert done.returncode == 3 and "2 failed calls" in done.stderr, done.stderr
        assert len(server.calls) == 2
    with chat_server(Answer("yes"), port=server.port) as server:
        done = run(server, tmp_path, database_url, "--judge", "checks", "--retry-errors")
        assert done.returncode == 0, done.stderr
        assert len(server.calls) == CONVERSATIONS
