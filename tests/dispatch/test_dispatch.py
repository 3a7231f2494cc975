"""Workers started on this machine, through submitit, and as jobs of a hub on loopback, without a secret shown."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer

from engine.lab import Gate, laboratory, wait_until
from support.program import vivace

URL = "postgresql://vivace:correct-horse@db.example/vivace"
KEY = "sk-a-key-of-a-provider-1234567890"


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """A file that asks for two workers, with a program that writes down what it was given."""
    program = tmp_path / "program"
    program.write_text(f'#!/bin/sh\necho "$* / $VIVACE_DATABASE / $PROVIDER_API_KEY" > {tmp_path}/given.$$\n')
    program.chmod(0o755)
    file = tmp_path / "dispatch.yaml"
    file.write_text(
        f"workers: 2\nqueues: [gpu]\noffer: [h200]\nlease: 20\nvariables: [PROVIDER_API_KEY]\nprogram: [{program}]\n"
        "slurm: {cluster: local, minutes: 5, setup: ['echo ready']}\n"
        "hf-jobs: {image: registry.example/vivace, flavor: h200, namespace: a-team}\n"
    )
    return file


def given(folder: Path) -> list[str]:
    """What programs wrote down."""
    return [file.read_text() for file in sorted(folder.glob("given.*"))]


def test_a_dry_run_says_what_would_be_started_and_no_secret(spec: Path, tmp_path: Path) -> None:
    for place in ("local", "slurm", "hf-jobs"):
        done = vivace(
            "dispatch", spec, "--to", place, "--dry-run", "--format", "json", "--home", tmp_path / "home",
            "--database", URL, PROVIDER_API_KEY=KEY,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        (planned,) = json.loads(done.stdout)
        assert planned["workers"] == 2
        assert planned["command"].endswith("worker --queue=gpu --offer=h200 --lease=20 --until-empty")
        assert planned["variables"] == ["PROVIDER_API_KEY", "VIVACE_DATABASE"]
        assert KEY not in done.stdout + done.stderr
        assert "correct-horse" not in done.stdout + done.stderr
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("place", ["local", "slurm"])
def test_workers_are_started_with_their_environment_and_nothing_of_it_is_written(
    place: str, spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("PROVIDER_API_KEY", KEY)
    done = vivace(
        "dispatch", spec, "--to", place, "--format", "json", "--home", home, "--database", tmp_path / "v.db",
        PROVIDER_API_KEY=KEY,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)) == 2
    wait_until(lambda: len(given(tmp_path)) == 2 and all(given(tmp_path)), "two workers")
    assert set(given(tmp_path)) == {
        f"worker --queue=gpu --offer=h200 --lease=20 --until-empty / sqlite:///{tmp_path / 'v.db'} / {KEY}\n"
    }
    assert "PROVIDER_API_KEY" not in done.stdout
    written = [file.read_bytes() for file in (home / "dispatch").rglob("*") if file.is_file()]
    assert written
    assert not any(KEY.encode() in content for content in written)


def test_jobs_of_the_hub_get_their_secrets_as_secrets(
    spec: Path, tmp_path: Path, postgres_url: str, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def start(request: Any) -> Any:
        from werkzeug import Response

        asked.append(request.get_json())
        job = {
            "id": f"job{len(asked)}", "createdAt": "2026-01-01T00:00:00.000Z", "dockerImage": "i", "command": [],
            "arguments": [], "environment": {}, "secrets": {}, "flavor": "h200", "status": {"stage": "RUNNING"},
            "owner": {"id": "1", "name": "a-team", "type": "org"},
        }  # fmt: skip
        return Response(json.dumps(job), content_type="application/json")

    httpserver.expect_request("/api/jobs/a-team", method="POST").respond_with_handler(start)
    options = ["--to", "hf-jobs", "--format", "json", "--home", tmp_path / "home", "--database", postgres_url]
    monkeypatch.setenv("HF_ENDPOINT", httpserver.url_for("").rstrip("/"))
    monkeypatch.setenv("HF_TOKEN", "hf_atoken")
    done = vivace("dispatch", spec, *options, PROVIDER_API_KEY=KEY)
    assert done.returncode == 0, done.stderr
    assert [row["id"] for row in json.loads(done.stdout)] == ["job1", "job2"]
    body = asked[0]
    assert body["secrets"]["PROVIDER_API_KEY"] == KEY
    assert body["secrets"]["VIVACE_DATABASE"].startswith("postgresql+psycopg://")
    assert body["flavor"] == "h200"
    assert KEY not in json.dumps({**body, "secrets": None})
    assert KEY not in done.stdout + done.stderr

    httpserver.clear()
    httpserver.expect_request("/api/jobs/a-team", method="POST").respond_with_data("no credit", status=402)
    refused = vivace("dispatch", spec, *options, PROVIDER_API_KEY=KEY)
    assert refused.returncode == 1
    assert "The hub starts no job" in refused.stderr


def test_what_cannot_be_gets_a_sentence_before_anything_is_started(spec: Path, tmp_path: Path) -> None:
    home = ["--home", tmp_path / "home"]
    for more, words, said in (
        ("", ["--to", "moon"], "There is no place for workers 'moon'"),
        ("", ["--to", "hf-jobs"], "cannot share a SQLite file"),
        ("", ["--to", "local"], "PROVIDER_API_KEY is to be handed to workers and is not set"),
        ("wrokers: 3\n", ["--to", "local"], "'wrokers' is wrong"),
        ("local: {gpus: 3}\n", ["--to", "local"], "'gpus' is wrong"),
    ):
        file = tmp_path / "changed.yaml"
        file.write_text(spec.read_text() + more)
        refused = vivace("dispatch", file, *words, *home)
        assert refused.returncode == 2, refused.stderr
        assert said in refused.stderr
    assert not given(tmp_path)


@pytest.mark.full
@pytest.mark.parametrize("place", ["local", "slurm"])
def test_a_worker_that_is_started_there_executes_what_is_submitted(place: str, tmp_path: Path) -> None:
    import sys

    with laboratory(tmp_path, f"sqlite:///{tmp_path / 'v.db'}", Gate(), conversations=2) as lab:
        submission = lab.submit()
        file = tmp_path / "d.yaml"
        file.write_text(f"program: [{sys.executable}, -m, vivace]\nslurm: {{cluster: local, minutes: 10}}\n")
        done = vivace("dispatch", file, "--to", place, *lab.common)
        assert done.returncode == 0, done.stderr
        lab.wait_for(submission, "complete")
        assert os.environ.get("VIVACE_DATABASE") is None
