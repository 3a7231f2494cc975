"""The queue as submitters and workers see it: order, status, cancelling, and what it survives."""

from __future__ import annotations

import json
import signal
import sys
from collections import Counter
from pathlib import Path
from subprocess import PIPE, Popen

import pytest
import yaml
from sqlalchemy import create_engine, text

from engine.lab import Gate, Lab, laboratory, opened, wait_until
from support.program import environment, vivace
from vivace.store.queries.submissions import submissions


@pytest.mark.usually_on("postgresql")
def test_two_workers_execute_ten_submissions_once_each(database_url: str, tmp_path: Path) -> None:
    with laboratory(tmp_path, database_url, Gate(0.05), conversations=3) as lab:
        ids = [lab.submit(model_arg={"seed": number}) for number in range(10)]
        assert [lab.view(submission).position for submission in ids] == list(range(1, 11))
        workers = [lab.start_worker("--until-empty") for _ in range(2)]
        places: dict[str, list[int]] = {submission: [] for submission in ids}

        def look() -> bool:
            views = submissions(database)
            for view in views:
                if view.position is not None:
                    places[view.id].append(view.position)
            return all(view.status == "complete" for view in views)

        with opened(lab.url) as database:
            wait_until(look, "all ten are complete", 400)
        assert [worker.wait(300) for worker in workers] == [0, 0]
        for seen in places.values():
            assert seen == sorted(seen, reverse=True), "a place in the queue only gets better"
        assert max(len(set(seen)) for seen in places.values()) > 1
        calls = Counter(call.body["seed"] for call in lab.server.calls)
        assert calls == dict.fromkeys(range(10), 3)
        assert lab.recorded() == {"reply": 30, "verdict": 60, "attempt": 30}
        assert all(sum("started by" in line for line in lab.events(submission)) == 1 for submission in ids)


@pytest.mark.usually_on("sqlite")
def test_status_logs_and_cancel_of_a_running_and_a_queued_submission(database_url: str, tmp_path: Path) -> None:
    gate = Gate(hold_from=4)
    with laboratory(tmp_path, database_url, gate, conversations=10) as lab:
        spec = tmp_path / "spec.yaml"
        spec.write_text(yaml.safe_dump(lab.spec(concurrency=2).model_dump(mode="json", by_alias=True)))
        submitted = vivace("submit", spec, *lab.common)
        assert submitted.returncode == 0, submitted.stderr
        running, queued = submitted.stdout.strip(), lab.submit(limit=3)
        worker = lab.start_worker("--lease", "4")
        wait_until(lambda: gate.held == 2, "two calls in flight")
        wait_until(lambda: lab.recorded()["verdict"] == 6, "what was answered is recorded")

        shown = vivace("status", "--format", "json", *lab.common)
        rows = {row["id"]: row for row in json.loads(shown.stdout)}
        assert rows[queued]["status"] == "queued"
        assert rows[queued]["position"] == 1
        row = rows[running]
        assert (row["status"], row["position"], row["errors"]) == ("running", None, 0)
        assert row["worker"]
        assert row["heartbeat_age_s"] < 4
        assert (row["items_done"], row["items_planned"]) == (3, 10)
        assert row["seconds_left"] > 0

        assert "is cancelled" in vivace("cancel", queued, *lab.common).stderr
        assert lab.view(queued).status == "cancelled"
        assert "will stop once its calls in flight have ended" in vivace("cancel", running, *lab.common).stderr
        wait_until(lambda: worker.poll() is None and "cancellation asked for" in lab.events(running), "asked")
        again = vivace("cancel", queued, *lab.common)
        assert again.returncode == 2
        assert "has ended already (cancelled)" in again.stderr
        # The worker hears of it with its next sign of life, at the latest after a quarter of its lease.
        heartbeat = lab.view(running).heartbeat_age_s
        assert heartbeat is not None
        wait_until(lambda: (lab.view(running).heartbeat_age_s or 0) < heartbeat, "the next sign of life")
        gate.opened.set()
        view = lab.wait_for(running, "cancelled")
        assert view.items_done == len(lab.server.calls) < 10, "what was in flight is recorded, and no call is new"

        log = vivace("logs", running, *lab.common).stdout
        for line in ("submitted to the queue", "started by", "cancellation asked for", "cancelled: "):
            assert line in log
        second = lab.submit(concurrency=2)
        assert second != running
        assert lab.wait_for(second, "complete").items_done == 10
        assert len(lab.server.calls) == 10, "submitting again asks only what was not recorded"
        assert lab.view(queued).status == "cancelled"
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(300) == 0


@pytest.mark.usually_on("sqlite")
def test_submissions_outlive_the_loss_of_everything_dbos_stores(database_url: str, tmp_path: Path) -> None:
    with laboratory(tmp_path, database_url, Gate(hold_from=1), conversations=2) as lab:
        # A worker that is busy has given workflows to those that wait.
        ids = [lab.submit(model_arg={"seed": number}) for number in range(3)]
        worker = lab.start_worker()
        wait_until(lambda: len(lab.server.calls) == 1, "the first is running")
        wait_until(lambda: all(_workflow_of(lab, submission) for submission in ids), "all have a workflow")
        worker.kill()
        worker.wait()
        _forget_everything_of_dbos(lab)
        lab.server._behave.opened.set()  # type: ignore[attr-defined]
        last = lab.start_worker("--until-empty")
        assert last.wait(120) == 0
        assert [lab.view(submission).status for submission in ids] == ["complete"] * 3
        assert lab.recorded() == {"reply": 6, "verdict": 12, "attempt": 6}
        assert len(lab.server.calls) == 7, "only the one in flight was asked again"


def _workflow_of(lab: Lab, submission_id: str) -> object:
    with opened(lab.url) as database, database.read() as session:
        return session.execute(
            text("SELECT workflow_id FROM shard WHERE submission_id = :id"), {"id": submission_id}
        ).scalar()


def _forget_everything_of_dbos(lab: Lab) -> None:
    database = lab.url.removeprefix("sqlite:///")
    if database != lab.url:
        path = Path(database)
        path.with_name(path.stem + "-queue.db").unlink()
        return
    engine = create_engine(lab.settings.database_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("DROP SCHEMA dbos CASCADE"))
    engine.dispose()


FAILING_ADAPTER = """
import os, sys
from vivace.models.adapters.replay import Replay

async def reply(self, prompt):
    if self.identity.name == "raises":
        raise RuntimeError("nobody foresaw this")
    if self.identity.name == "leaves":
        sys.exit(7)
    return await sound(self, prompt)

sound, Replay.reply = Replay.reply, reply
from vivace.cli.main import main
main()
"""


@pytest.mark.usually_on("sqlite")
@pytest.mark.parametrize(("name", "said"), [("raises", "RuntimeError: nobody foresaw this"), ("leaves", "")])
def test_an_adapter_that_breaks_fails_its_submission_and_not_the_worker(
    database_url: str, tmp_path: Path, name: str, said: str
) -> None:
    with laboratory(tmp_path, database_url, Gate(), conversations=2) as lab:
        ids = []
        for stem in (name, "sound"):
            replies = tmp_path / f"{stem}.jsonl"
            replies.write_text(
                "".join(
                    json.dumps({"id": f"conversation{n:04d}", "response": f"yes, {stem}"}) + "\n" for n in range(2)
                )
            )
            ids.append(lab.submit(model=f"replay:{replies}", api_base=None))
        worker = Popen(
            [sys.executable, "-c", FAILING_ADAPTER, "worker", "--until-empty", *map(str, lab.common)],
            env=environment(), cwd=tmp_path, stdout=PIPE, stderr=PIPE, text=True,
        )  # fmt: skip
        lab.processes.append(worker)
        _, talk = worker.communicate(timeout=300)
        assert worker.returncode == 0, talk
        failed, sound = map(lab.view, ids)
        assert failed.status == "failed"
        assert failed.message
        assert said in failed.message
        assert f"{failed.id} failed: {said}" in talk
        assert (sound.status, sound.items_done) == ("complete", 2)


@pytest.mark.usually_on("postgresql")
def test_a_worker_of_two_queues_executes_one_submission_at_a_time(database_url: str, tmp_path: Path) -> None:
    gate = Gate(hold_from=1)
    with laboratory(tmp_path, database_url, gate, conversations=2) as lab:
        ids = [lab.submit(queue=queue, model_arg={"seed": queue}) for queue in ("slow", "fast")]
        worker = lab.start_worker("--queue", "slow", "--queue", "fast", "--until-empty")
        wait_until(lambda: gate.held == 1, "one of them runs")
        wait_until(lambda: all(_workflow_of(lab, submission) for submission in ids), "both have a workflow")
        # The other one is offered to other workers: its workflow, taken here, is replaced by a new one.
        wait_until(
            lambda: sorted(str(_workflow_of(lab, submission)).rpartition(".")[2] for submission in ids) == ["1", "2"],
            "the one that waits is offered again",
        )
        assert sorted(lab.view(submission).status for submission in ids) == ["queued", "running"]
        assert gate.held == 1
        gate.opened.set()
        assert worker.wait(300) == 0
        assert [lab.view(submission).status for submission in ids] == ["complete"] * 2
        assert lab.recorded() == {"reply": 4, "verdict": 8, "attempt": 4}
        assert len(lab.server.calls) == 4
