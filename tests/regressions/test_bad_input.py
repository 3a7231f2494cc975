"""What cannot be asked of a regression job, and where alerts cannot go: a sentence each, and nothing is written."""

from __future__ import annotations

import socketserver
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from sqlalchemy import select

from support.datasets import conversation_rows, write_jsonl
from support.program import board, vivace
from support.regression_world import Inbox
from vivace.cli.results import regress
from vivace.engine.sent_files import laid_out
from vivace.errors import UsageError
from vivace.regressions import deliveries
from vivace.regressions.deliveries import bound, check_webhook, deliver
from vivace.regressions.jobs import parse_job, read_jobs
from vivace.settings import Settings
from vivace.spec import DialogueSpec, parse_spec
from vivace.store.database import Database
from vivace.store.migrate import open_for_writing
from vivace.store.tables import Alert, Delivery, Night, Schedule


@pytest.fixture
def run(tmp_path: Path) -> dict[str, object]:
    """The spec of a run on recorded replies."""
    write_jsonl(tmp_path / "replies.jsonl", [{"id": f"conversation{n:04d}", "response": "yes no"} for n in range(8)])
    data = write_jsonl(tmp_path / "data.jsonl", conversation_rows(8, turns=1, audio=False))
    model = f"replay:{tmp_path / 'replies.jsonl'}"
    return {"track": "audio-multichallenge", "data": str(data), "model": model, "judge": "checks"}


def add(folder: Path, run: dict[str, object], **job: object) -> tuple[int, str]:
    """`vivace regress add --file` of one job; exit code and talk."""
    file = folder / "jobs.yaml"
    file.write_text(yaml.safe_dump({"jobs": {"nightly": {"run": run, **job}}}))
    done = vivace("regress", "add", "--file", file, "--home", folder / "home")
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def test_what_a_job_reads_goes_to_workers_that_have_no_folder_in_common_with_it(
    tmp_path: Path, run: dict[str, object]
) -> None:
    settings = Settings(home=tmp_path / "home", artifacts=str(tmp_path / "shared"))
    regress._add([parse_job("nightly", {"run": run}, "here")], settings, dry_run=False)
    kept = {name: (tmp_path / name).read_bytes() for name in ("data.jsonl", "replies.jsonl")}
    for name in kept:
        (tmp_path / name).unlink()
    database = open_for_writing(settings)
    with database.read() as session:
        spec = parse_spec(session.scalars(select(Schedule)).one().spec)
    database.close()
    assert isinstance(spec, DialogueSpec)
    there = laid_out(spec, settings.model_copy(update={"home": tmp_path / "worker"}))
    assert isinstance(there, DialogueSpec)
    assert Path(there.data).read_bytes() == kept["data.jsonl"]
    assert Path(there.model.removeprefix("replay:")).read_bytes() == kept["replies.jsonl"]


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ({"baseline": "windwo"}, "neither window"),
        ({"baseline": "window:0"}, "1 to 60 nights"),
        ({"gates": {"qualty": 0.1}}, "did you mean 'quality'"),
        ({"gates": {"speed": 0.1}}, "no gate 'speed' on the track"),
        ({"gates": {"quality": "a lot"}}, "a share from 0 to 1"),
        ({"gates": [1]}, "must name gates"),
        ({"cron": "0 0 30 2 *"}, "never comes to pass"),
        ({"cron": "0 3 * * *", "time-zone": "Berlin"}, "no time zone 'Berlin'"),
        ({"crom": "0 3 * * *"}, "did you mean 'cron'"),
        ({"webhook": "ftp://x"}, "is no address"),
        ({"webhook": "env:NOT_SET_ANYWHERE"}, "is not set"),
        ({"email": ["a@b.org"]}, "VIVACE_SMTP"),
        ({"owner": 7}, "must be a text"),
        ({"owner": "x" * 501}, "500 characters at the most"),
    ],
)
def test_a_job_that_cannot_be_gets_a_sentence(
    tmp_path: Path, run: dict[str, object], job: dict[str, object], said: str
) -> None:
    code, talk = add(tmp_path, run, **job)
    assert code == 2
    assert said in talk
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"track": "audio"}, "Unknown track 'audio'"),
        ({"cache": True}, "leave out cache"),
        ({"data": "nowhere.jsonl"}, "nowhere.jsonl"),
        ({"model": "recorded:1234"}, "judge drift"),
    ],
)
def test_a_run_that_cannot_be_made_gets_a_sentence(
    tmp_path: Path, run: dict[str, object], changes: dict[str, object], said: str
) -> None:
    code, talk = add(tmp_path, {**run, **changes})
    assert code == 2
    assert said in talk


def test_a_file_makes_jobs_and_changes_them_and_a_retracted_baseline_is_refused(
    tmp_path: Path, run: dict[str, object]
) -> None:
    assert add(tmp_path, run, cron="0 3 * * *")[0] == 0
    assert "is changed" in add(tmp_path, run, cron="0 4 * * *")[1]
    common = ("--home", tmp_path / "home")
    assert vivace("regress", "run", "nightly", *common).returncode == 0
    assert vivace("regress", "run", "nightly", *common).returncode == 0
    (row,) = board(*common)
    assert row["job"] == "job nightly", "of the nights the board has the newest"
    assert "Job nightly: quiet" in vivace("status", *common).stderr
    named = row["run"]
    assert add(tmp_path, run, baseline=named)[0] == 0
    vivace("retract", named, "--reason", "wrong data", *common)
    code, talk = add(tmp_path, run, baseline=named)
    assert (code, "was retracted (wrong data)" in talk) == (2, True)
    night = vivace("regress", "run", "nightly", *common)
    assert (night.returncode, "was retracted" in night.stderr) == (3, True)
    assert vivace("regress", "rm", "nightly", *common).returncode == 0
    assert "no jobs yet" in vivace("regress", "list", *common).stderr


@pytest.mark.parametrize("arguments", [["run", "nope"], ["show", "nope"], ["pause", "nope"], ["run"], ["add"]])
def test_jobs_that_are_not_there(tmp_path: Path, arguments: list[str]) -> None:
    open_for_writing(Settings(home=tmp_path)).close()
    done = vivace("regress", *arguments, "--home", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: ")


def test_what_is_due_is_run_by_plain_cron_once(tmp_path: Path, run: dict[str, object]) -> None:
    assert add(tmp_path, run, cron="0 0 1 1 *")[0] == 0
    common = ("--home", tmp_path / "home")
    assert "Nothing is due" in vivace("regress", "run", "--due", *common).stderr
    database = open_for_writing(Settings(home=tmp_path / "home"))
    with database.write() as session:
        session.scalars(select(Schedule)).one().next_due_at = datetime(2020, 1, 1, tzinfo=UTC)
    database.close()
    done = vivace("regress", "run", "--due", *common)
    assert (done.returncode, "accepted; " in done.stderr, "later ticks were missed" in done.stderr) == (0, True, True)
    assert "Nothing is due" in vivace("regress", "run", "--due", *common).stderr


def test_a_file_of_jobs_holds_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "jobs.yaml"
    for text in ("jobs: {}", "jobs: [a]", "job: {}", "jobs: {a: {}}\nowner: us"):
        file.write_text(text)
        with pytest.raises(UsageError, match="'jobs' and nothing else"):
            read_jobs(file)


def test_a_job_keeps_its_track(tmp_path: Path, run: dict[str, object]) -> None:
    assert add(tmp_path, run)[0] == 0
    code, talk = add(tmp_path, {"track": "sparsity", "model": "zoo:dense", "tasks": "sums", "arms": "int8"})
    assert (code, "take another name" in talk) == (2, True)


# Deliveries


@pytest.fixture
def database(tmp_path: Path) -> Database:
    """A database with a job and an alert."""
    opened = open_for_writing(Settings(home=tmp_path / "home"))
    with opened.write() as session:
        job = Schedule(name="j", spec={}, baseline="window", gates={}, time_zone="UTC", queue="default", email=[])
        session.add(job)
        session.flush()
        session.add(Night(id="n1", schedule_id=job.id, status="ended", runs=[], baseline=[], causes=[]))
        session.flush()
        session.add(Alert(id=1, schedule_id=job.id, night_id="n1", kind="regression", message="m", causes=[]))
    return opened


def send(database: Database, channel: str, target: str, text: str = "Worse.\nBy far.") -> Delivery:
    """Deliver one message without pauses; its row."""
    with database.write() as session:
        session.add(Delivery(alert_id=1, channel=channel, target=target, text=bound(text), state="pending"))
    deliver(database, say=lambda _: None, pause=lambda _: None)
    with database.read() as session:
        return session.scalars(select(Delivery).order_by(Delivery.id.desc())).first()  # type: ignore[return-value]


def test_a_webhook_that_always_fails_is_given_up_after_nine_tries_and_says_so(database: Database) -> None:
    with Inbox().open() as inbox:
        inbox.statuses = [500] * 20
        for tries, state in ((3, "pending"), (6, "pending"), (9, "failed")):
            row = send(database, "webhook", inbox.address) if tries == 3 else None
            if row is None:
                deliver(database, say=lambda _: None, pause=lambda _: None)
                with database.read() as session:
                    row = session.scalars(select(Delivery)).one()
            assert (row.tries, row.state, row.error) == (tries, state, "it answers 500")
        assert len(inbox.received) == 9


def test_a_webhook_that_hangs_is_left_after_its_time(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliveries, "TIMEOUT_S", 0.05)

    class Silent(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(b"HTTP/1.1 200 OK\r\n")
            stopped.wait(20)

    stopped = threading.Event()
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Silent) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        row = send(database, "webhook", f"http://127.0.0.1:{server.server_address[1]}/")
        stopped.set()
        server.shutdown()
    assert (row.state, row.tries) == ("pending", 3)
    assert "no answer within" in str(row.error)


def test_what_goes_out_is_bounded_printable_and_without_keys(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "abcdefgh12345678")
    with Inbox().open() as inbox:
        monkeypatch.setenv("HOOK", inbox.address)
        row = send(database, "webhook", "env:HOOK", "key abcdefgh12345678 <!channel> \x1b[31m" + "x" * 9000)
    (message,) = inbox.received
    assert row.state == "sent"
    assert "abcdefgh12345678" not in message["text"]
    assert "\x1b" not in message["text"]
    assert "<!channel>" not in message["text"]
    assert len(message["text"]) < 3100


def test_mail_is_sent_with_one_line_for_its_subject(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[str] = []

    class Server(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 here\r\n")
            while line := self.rfile.readline():
                if line.upper().startswith(b"DATA"):
                    self.wfile.write(b"354 go on\r\n")
                    while (line := self.rfile.readline()) not in (b".\r\n", b""):
                        received.append(line.decode().rstrip())
                self.wfile.write(b"221 bye\r\n" if line.upper().startswith(b"QUIT") else b"250 ok\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setenv("VIVACE_SMTP", f"smtp://127.0.0.1:{server.server_address[1]}")
        monkeypatch.setenv("VIVACE_SMTP_FROM", "vivace@example.org")
        row = send(database, "email", "ops@example.org")
        server.shutdown()
    assert (row.state, row.error) == ("sent", None)
    assert "Subject: Worse." in received
    assert "By far." in received


@pytest.mark.parametrize(
    "address",
    [
        "https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX",
        "https://user:secret-password@example.org/",
        "https://user@example.org/",
        "https://example.org/hook?token=abc",
        "http://",
        "http://exa mple.org",
        "http://example.org:99999/",
        "file:///etc/passwd",
    ],
)
def test_webhooks_that_hold_a_secret_or_are_none_are_refused(address: str) -> None:
    with pytest.raises(UsageError):
        check_webhook(address)
