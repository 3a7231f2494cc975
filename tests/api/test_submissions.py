"""A stranger's way through the API: outputs in, queued for a worker as the command line queues them, results out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from api.conftest import REPLIES, Guest
from support.datasets import tone, write_jsonl
from support.program import vivace
from vivace.engine.access.tokens import bearer_of, create_token
from vivace.errors import UsageError
from vivace.output.secrets import masked
from vivace.settings import Settings
from vivace.store.artifacts import Artifacts
from vivace.store.database import Database
from vivace.store.tables import Reply


@pytest.fixture
def call(settings: Settings) -> Any:
    """The operator's command line on the same home."""

    def run(*words: object) -> str:
        done = vivace(*words, "--home", settings.home)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_outputs_are_judged_by_a_worker_and_results_are_their_owners(guest: Guest, call: Any) -> None:
    alice, bob, admin = guest("alice"), guest("bob"), guest("carol", "admin")
    (opened,) = guest(None)("GET", "/v1/sets").json()
    assert (opened["name"], opened["judge"], opened["takes_models"]) == ("demo", "checks", False)
    made = alice.submit(private=True)
    assert made.status_code == 201, made.text
    key = made.json()["id"]
    assert (made.json()["status"], made.json()["position"], made.json()["replies_planned"]) == ("queued", 1, 16)
    assert "worker" not in made.text
    assert alice.submit(private=True).json()["id"] == key, "the same is not queued twice"
    call("worker", "--until-empty")
    status = alice("GET", f"/v1/submissions/{key}").json()
    assert (status["status"], status["verdicts_done"]) == ("complete", status["verdicts_planned"])
    results = alice("GET", f"/v1/submissions/{key}/results").json()
    assert results["scores"][0]["model"] == "A system" and 0 < results["scores"][0]["apr"] <= 1
    assert len(results["conversations"]) == 16 and results["conversations"][0]["criteria"]
    assert alice("GET", "/v1/leaderboard").json() == results["scores"]
    for path in (f"/v1/submissions/{key}", f"/v1/submissions/{key}/results"):
        assert bob("GET", path).status_code == 404 and admin("GET", path).status_code == 200
    assert bob("GET", "/v1/leaderboard").json() == [] == bob("GET", "/v1/submissions").json()
    assert bob("POST", f"/v1/submissions/{key}/cancel").status_code == 404
    assert alice("POST", f"/v1/submissions/{key}/cancel").status_code == 409
    assert bob.submit().json()["id"] != key, "the same outputs of somebody else are a run of theirs"
    assert bob("POST", f"/v1/submissions/{key}/visibility", json={"private": False}).status_code == 404
    assert alice("POST", f"/v1/submissions/{key}/visibility", json={"private": False}).status_code == 200
    assert len(bob("GET", "/v1/leaderboard").json()) == 1
    call("data", "hide", "demo")
    assert alice("GET", f"/v1/submissions/{key}/results").json()["conversations"] is None
    assert alice("GET", f"/v1/submissions/{key}/results").json()["scores"][0]["apr"] == results["scores"][0]["apr"]
    assert admin("GET", f"/v1/submissions/{key}/results").json()["conversations"]


def test_a_queued_submission_is_cancelled_by_its_owner(guest: Guest) -> None:
    alice = guest("alice")
    key = alice.submit().json()["id"]
    assert alice("POST", f"/v1/submissions/{key}/cancel").json()["status"] == "cancelled"
    assert [one["id"] for one in alice("GET", "/v1/submissions").json()] == [key]


def test_uploads_are_ones_own(guest: Guest) -> None:
    alice, bob = guest("alice"), guest("bob")
    sent = alice.upload().json()
    assert (sent["replies"], sent["bytes"]) == (16, len(REPLIES))
    assert alice.upload().json() == sent, "the same again changes nothing"
    refused = bob.submit(outputs=sent["sha256"])
    assert refused.status_code == 404 and "no upload" in refused.json()["detail"]
    assert bob.submit(outputs="0" * 64).status_code == 404


def test_nobody_changes_how_the_system_of_another_is_described(guest: Guest, call: Any) -> None:
    alice, bob, admin = guest("alice"), guest("bob"), guest("carol", "admin")
    alice.submit(
        card={"name": "Mine", "organisation": "A laboratory", "description": "Nobody is to know."}, private=True
    )
    assert bob.submit(card={"name": "Renamed"}).json()["model"] == "Renamed"
    call("worker", "--until-empty")
    assert [row["model"] for row in alice("GET", "/v1/submissions").json()] == ["Mine"]
    assert sorted(row["model"] for row in admin("GET", "/v1/leaderboard").json()) == ["Mine", "Renamed"]
    assert "laboratory" not in bob("GET", "/v1/leaderboard").text
    assert alice.submit(card={"name": "Ours"}, private=True).status_code == 201
    assert sorted(row["model"] for row in admin("GET", "/v1/leaderboard").json()) == ["Ours", "Renamed"]


def test_submit_model_sends_a_spec_to_a_server_and_follows_it(
    server: int, database: Database, settings: Settings, call: Any, tmp_path: Path
) -> None:
    token = create_token(database, "alice", ["submit", "read"])
    address = f"http://127.0.0.1:{server}"

    def there(*words: object, **changes: str) -> Any:
        return vivace(*words, "--server", address, cwd=tmp_path, **{"VIVACE_TOKEN": token, **changes})

    rows = [json.loads(line) for line in REPLIES.splitlines()]
    for folder in ("spoken", "talk", "bad"):
        (tmp_path / folder).mkdir()
    for row in rows[:2]:
        (tmp_path / "spoken" / f"{row['id']}.flac").write_bytes(tone(440))
        row["audio"] = f"spoken/{row['id']}.flac"
    (tmp_path / "talk" / f"{rows[0]['id']}.wav").write_bytes(tone(440, container="WAV"))
    (tmp_path / "bad" / f"{rows[0]['id']}.wav").write_bytes(b"RIFF\x24\0\0\0WAVE")
    write_jsonl(tmp_path / "replies.jsonl", rows)
    spec = tmp_path / "spec.yaml"
    spec.write_text("track: audio-multichallenge\ndata: demo\nmodel: replay:replies.jsonl\n")
    made = there("submit", spec, "--private")
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    assert "queued there in place 1" in made.stderr and token not in made.stderr + made.stdout
    assert "sending 2 recordings" in made.stderr
    for folder in (tmp_path / "spoken", settings.home / "fetched"):
        shutil.rmtree(folder)  # a worker stands on what was sent, and on nothing else
    call("worker", "--until-empty")
    with database.read() as session:
        sounds = [sha256 for sha256 in session.scalars(select(Reply.audio_sha256)) if sha256]
    assert len(sounds) == 2 and all(
        Artifacts(settings.home / "artifacts").get(each)[:4] == b"RIFF" for each in sounds
    )
    shown = json.loads(there("status", key, "--format", "json").stdout)
    assert (shown["status"], shown["scores"][0]["model"], shown["scores"][0]["private"]) == (
        "complete",
        "replies",
        True,
    )
    assert "complete" in there("status").stdout and "replies" in there("status", key).stdout
    for words, changes, why in (
        (("cancel", key), {}, "has ended already"),
        (("status", "nothing"), {}, "refuses this"),
        (("submit", spec, "--set", "judge=checks"), {}, "'judge' is what the server says"),
        (("submit", spec, "--set", "model=litellm:x/y"), {}, "upload outputs"),
        (("submit", spec, "--set", "model=replay:nothing.jsonl"), {}, "nothing.jsonl"),
        (("submit", spec, "--set", "model=replay:talk"), {}, "--transcriber"),
        (("submit", spec, "--set", "model=replay:bad"), {}, f"The recording 'bad/{rows[0]['id']}.wav'"),
        (("submit", spec, "--set", "model=replay:."), {}, "ID.wav"),
        (("status",), {"VIVACE_TOKEN": ""}, "Set VIVACE_TOKEN"),
        (("status",), {"VIVACE_TOKEN": "a b"}, "is no token"),
        (("status",), {"VIVACE_TOKEN": "vivace_" + "x" * 43}, "401"),
    ):
        refused = there(*words, **changes)
        assert (refused.returncode, why in refused.stderr, "Traceback" in refused.stderr) == (2, True, False), refused
    for elsewhere, why in (("http://example.org", "unencrypted"), ("ftp://x", "not the address")):
        assert why in vivace("status", "--server", elsewhere, VIVACE_TOKEN=token).stderr


def test_the_operator_makes_lists_and_revokes_tokens(call: Any, database: Database) -> None:
    token = call("token", "create", "alice", "--owner", "alice@example.org", "--scope", "read").strip()
    found = bearer_of(database, token)
    assert found is not None and (found.owner, found.scopes) == ("alice@example.org", {"read"})
    with pytest.raises(UsageError, match="at most 36,500 days"):
        create_token(database, "bob", ["read"], days=1e9)
    (row,) = json.loads(call("token", "list", "--format", "json"))
    assert (row["name"], row["state"]) == ("alice", "open") and token not in str(row)
    call("token", "revoke", "alice")
    assert "revoked" in call("token", "list")
    assert masked(f"it said {token} twice") == "it said [token] twice"
