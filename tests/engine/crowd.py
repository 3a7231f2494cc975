"""What the processes of the tests do that put many of them on one database."""

from __future__ import annotations

import time
from multiprocessing.queues import Queue as Pipe
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from vivace.settings import Settings
from vivace.store.columns import now
from vivace.store.database import Database
from vivace.store.migrate import open_for_writing
from vivace.store.queries.board import board
from vivace.store.records import add_event, insert_new
from vivace.store.tables import (
    Attempt,
    Conversation,
    Criterion,
    Dataset,
    Judge,
    Judging,
    Model,
    Reply,
    Run,
    Shard,
    Submission,
    Verdict,
)


def prepare(url: str, runs: int, home: Path) -> list[str]:
    """A database with runs of one conversation each, judged and on the board; the runs' ids."""
    from vivace.tracks.dialogue.judging.results import score_judging  # not needed by, and slow to load for, the crowd

    database = open_for_writing(Settings(home=home, database=url))
    ids = [f"run{number}" for number in range(runs)]
    with database.write() as session:
        session.add(Dataset(id=1, fingerprint="d", name="data", revision="1", has_audio=False))
        session.add(Model(id=1, fingerprint="m", target="t", adapter="replay", name="model", parameters={}))
        session.add(Judge(id=1, fingerprint="j", target="checks", name="checks", parameters={}, parser_version="1"))
        session.flush()
        session.add(Conversation(id=1, dataset_id=1, external_id="c", position=0, axis="VOICE_EDITING"))
        session.flush()
        session.add(Criterion(id=1, conversation_id=1, number=0, text="Says yes"))
        for run in ids:
            session.add(
                Run(
                    id=run, identity=run, ordinal=0, track="audio-multichallenge", dataset_id=1, model_id=1,
                    input_form="transcript", items=["c"], limited=False, manifest={},
                )
            )  # fmt: skip
            session.flush()
            session.add(Judging(id=f"{run}.j", run_id=run, judge_id=1))
            session.flush()
            score_judging(session, f"{run}.j")
    database.close()
    return ids


def queue_submission(session: Session, run: str, parts: int = 1) -> None:
    """A submission `s` for a run, queued with its shards `s-1`, `s-2`, …"""
    session.add(Submission(id="s", run_id=run, judging_id=f"{run}.j", spec={}, queue="default", status="queued"))
    session.flush()
    for number in range(1, parts + 1):
        first, last = (None, None) if parts == 1 else (number - 1, number)
        session.add(
            Shard(
                id=f"s-{number}", submission_id="s", number=number, first=first, last=last, needs=[], status="queued"
            )
        )


def write(url: str, run: str, transactions: int, start: Barrier, told: Pipe[Any]) -> None:
    """Record a reply, its verdict, its call and a line of the log in each transaction; tell how many there were."""
    database = Database(url)
    start.wait()
    committed, longest = 0, 0.0
    while committed < transactions:
        began = time.monotonic()
        key = {"run_id": run, "conversation_id": 1, "repeat": committed}
        with database.write() as session:
            insert_new(session, Reply, [{**key, "text": "yes", "created_at": now()}])
            reply = session.scalars(select(Reply.id).filter_by(**key)).one()
            verdict = {"judging_id": f"{run}.j", "reply_id": reply, "criterion_id": 1, "vote": 0, "met": True}
            insert_new(session, Verdict, [{**verdict, "created_at": now()}])
            session.add(Attempt(run_id=run, judging_id=f"{run}.j", stage="judge", seconds=0.1))
            add_event(session, f"reply {committed}", run_id=run)
        committed += 1
        longest = max(longest, time.monotonic() - began)
    database.close()
    told.put((run, committed, longest))


def read(url: str, rows: int, start: Barrier, stop: Event, told: Pipe[Any]) -> None:
    """Read the board until stopped; tell how often, and the longest time one look took."""
    database = Database(url, read_only=True)
    start.wait()
    looks, longest = 0, 0.0
    while not stop.is_set():
        began = time.monotonic()
        assert len(board(database)) == rows
        looks += 1
        longest = max(longest, time.monotonic() - began)
    database.close()
    told.put(("reader", looks, longest))


def open_new(url: str, home: Path, start: Barrier, told: Pipe[Any]) -> None:
    """Open a database that nobody has made yet, and write a row; tell what went wrong, if anything."""
    start.wait()
    try:
        database = open_for_writing(Settings(home=home, database=url))
        with database.write() as session:
            add_event(session, "opened")
        database.close()
    except Exception as error:
        told.put(f"{type(error).__name__}: {error}")
    else:
        told.put(None)
