"""The runner benchmark without its other contestant: its servers, its data, its Vivace arm, its complaints."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import runner
from report import BenchmarkError
from rivals import conversations
from runner import Measurement, Servers, Work

from vivace.tracks.dialogue.data.readers import open_conversations
from vivace_rubrics.parsing import parse_verdict


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three made conversations."""
    folder = tmp_path_factory.mktemp("made") / "data"
    conversations.make(folder, 3, seed=7)
    return folder


def measurement(arm: str, requests: int = 10, audio_parts: int = 4, size: int = 1000) -> Measurement:
    """What an arm might have taken."""
    counts = {"requests": requests, "audio_parts": audio_parts, "request_bytes": size}
    return Measurement(arm, 3, 1.0, 1.0, 1, {"model": counts, "judge": counts})


def test_both_contestants_are_given_the_same_conversations(data: Path) -> None:
    read = open_conversations(str(data / "conversations.parquet"))
    samples = [json.loads(line) for line in (data / "samples.jsonl").read_text(encoding="utf-8").splitlines()]
    recordings = dict(read.recordings(read.conversations))
    assert len(samples) == len(read.conversations) == 3
    for sample, conversation in zip(samples, read.conversations, strict=True):
        assert sample["id"] == conversation.id
        assert sample["metadata"]["criteria"] == [criterion.text for criterion in conversation.criteria]
        spoken = [Path(message["content"][0]["audio"]) for message in sample["input"] if message["role"] == "user"]
        assert [file.read_bytes() for file in spoken] == recordings[conversation]
        said = [message["content"] for message in sample["input"] if message["role"] == "assistant"]
        assert said == [exchange.assistant for exchange in conversation.exchanges[:-1]]


def test_the_same_seed_makes_the_same_bytes(data: Path, tmp_path: Path) -> None:
    conversations.make(tmp_path / "again", 3, seed=7)
    conversations.make(tmp_path / "other", 3, seed=8)
    first, again, other = (
        (folder / "conversations.parquet").read_bytes() for folder in (data, tmp_path / "again", tmp_path / "other")
    )
    assert first == again != other


def test_the_servers_answer_whole_and_streamed_and_count() -> None:
    with runner.servers(latency_ms=1) as servers:
        recording = base64.b64encode(b"RIFF").decode()
        part = {"type": "input_audio", "input_audio": {"data": recording, "format": "wav"}}
        asked = {"model": "loopback", "messages": [{"role": "user", "content": [part, part]}]}
        model, judge = (f"{servers.base(port)}/chat/completions" for port in (servers.model_port, servers.judge_port))
        whole = httpx.post(model, json=asked).json()["choices"][0]["message"]["content"]
        events = httpx.post(model, json={**asked, "stream": True}).text.split("\n\n")
        pieces = [json.loads(event.removeprefix("data: ")) for event in events if event and "[DONE]" not in event]
        text = "".join(piece["choices"][0]["delta"].get("content", "") for piece in pieces if piece["choices"])
        assert text == whole
        answer = httpx.post(judge, json={"model": "judge", "messages": []}).json()["choices"][0]["message"]["content"]
        assert parse_verdict(answer).met is True
        counts = servers.take_counts()
        assert {key: counts["model"][key] for key in ("requests", "streamed", "audio_parts")} == {
            "requests": 2,
            "streamed": 1,
            "audio_parts": 4,
        }
        assert counts["judge"]["requests"] == 1
        assert servers.take_counts()["model"]["requests"] == 0


def test_the_vivace_arm_makes_one_call_for_each_reply_and_criterion(data: Path, tmp_path: Path) -> None:
    expected = open_conversations(str(data / "conversations.parquet")).conversations
    with runner.servers(latency_ms=1) as servers:
        command = runner.vivace_command(runner.vivace_flags())
        taken = runner.measure("vivace", command, Work(data, servers, tmp_path), len(expected))
    assert taken.counts["model"]["requests"] == taken.counts["model"]["streamed"] == len(expected)
    assert taken.counts["model"]["audio_parts"] == sum(len(one.exchanges) for one in expected)
    assert taken.counts["judge"]["requests"] == sum(len(one.criteria) for one in expected)
    assert taken.cpu_s > 0 and taken.wall_s > 0 and taken.memory_bytes > 50 * 2**20


def test_an_arm_that_fails_is_an_error_that_shows_what_it_printed(data: Path, tmp_path: Path) -> None:
    script = "import sys; print('no such model'); sys.exit(5)"
    with runner.servers() as servers, pytest.raises(BenchmarkError, match=r"status 5(.|\n)*no such model"):
        runner.measure("x", lambda *_: [sys.executable, "-c", script], Work(data, servers, tmp_path), 3)


@pytest.mark.parametrize(
    "other", [measurement("b", requests=11), measurement("b", audio_parts=5), measurement("b", size=1030)]
)
def test_different_work_is_not_compared(other: Measurement) -> None:
    runner.check_same_work(measurement("a"), measurement("b"))
    with pytest.raises(BenchmarkError, match="different"):
        runner.check_same_work(measurement("a"), other)


def test_no_work_at_all_is_not_compared() -> None:
    nothing = measurement("a", requests=0)
    with pytest.raises(BenchmarkError, match="different work"):
        runner.check_same_work(nothing, nothing)


def test_without_a_network_a_sentence_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "ENVIRONMENT", tmp_path / "inspect-venv")
    monkeypatch.setattr(runner, "INSPECT_PACKAGES", ("--no-index", "inspect_ai"))
    with pytest.raises(BenchmarkError, match=r"cannot be built .*; it needs the network once") as raised:
        runner.build_environment()
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "inspect-venv").exists()


def test_the_report_holds_a_headline_row_for_each_limit() -> None:
    few = (measurement("vivace", 5), measurement("inspect_ai", 5))
    pair = (measurement("vivace"), measurement("inspect_ai"))
    report = runner.summarise([few], [pair, pair], {"inspect_ai": "0"}, seed=0)
    headline = {found.metric: found for found in report.rows if found.headline}
    assert set(headline) == set(runner.LIMITS)
    assert headline["wall_s"].floor == pytest.approx(20 * 0.05 / 64)
    assert len(report.manifest["measurements"]) == 6


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_server_outlives_the_benchmark(number: signal.Signals, tmp_path: Path) -> None:
    script = tmp_path / "hold.py"
    script.write_text(
        "import runner, signal, sys, time\n"
        "for number in (signal.SIGINT, signal.SIGTERM):  # whatever those who started the tests ignore\n"
        "    signal.signal(number, signal.default_int_handler)\n"
        "with runner.servers() as servers:\n"
        "    print(servers.model_port, flush=True)\n"
        "    time.sleep(60)\n",
        encoding="utf-8",
    )
    benchmarks = {**os.environ, "PYTHONPATH": str(Path(runner.__file__).parent)}
    process = subprocess.Popen(
        [sys.executable, str(script)], env=benchmarks, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    servers = Servers(int(process.stdout.readline()), 0)
    assert httpx.get(servers.base(servers.model_port) + "/models", timeout=120).status_code == 200
    process.send_signal(number)
    process.wait(timeout=120)
    deadline = time.monotonic() + 120  # only so that a server that stays does not hang the suite
    while time.monotonic() < deadline:
        try:
            httpx.get(servers.base(servers.model_port) + "/models")
        except httpx.TransportError:
            return
        time.sleep(0.05)
    raise AssertionError("the servers still answer")
