"""All of the public set, voiced: every user turn arrives as sound, and every criterion gets its verdict.

It takes a quarter of an hour, and runs where the transcripts are at hand.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest

from support.chat_server import Answer, Call, chat_server, verdict
from support.listener import listener, recordings
from support.program import vivace
from vivace.audio.convert import for_model
from vivace.tracks.dialogue.data.readers import open_conversations

TRANSCRIPTS = Path(__file__).parents[3] / "shared" / "data" / "audiomc" / "transcripts.jsonl"
PROMPT = TRANSCRIPTS.with_name("judge_prompt.txt")
LATENCY_S = 0.05


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.mark.full
@pytest.mark.skipif(not TRANSCRIPTS.exists(), reason="the public set's transcripts are not here")
@pytest.mark.timeout(3600)
def test_the_whole_set_arrives_and_is_judged(tmp_path: Path) -> None:
    data = tmp_path / "voiced.parquet"
    spoken = vivace("data", "voice", TRANSCRIPTS, "--out", data, "--home", tmp_path / "home", timeout=1800)
    assert spoken.returncode == 0, spoken.stderr
    arrived: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    hear = listener()

    def behave(call: Call) -> Answer:
        if call.model == "judge":
            asked["judge"] += 1
            answer = verdict(True)
        elif "digit by digit" in json.dumps(call.messages[-1]):
            answer = hear(call)
        else:
            asked["model"] += 1
            arrived.update(map(sha256, recordings(call)))
            answer = Answer("I see. Let me think about all that you have told me.")
        call.body = {"model": call.model}  # 452 conversations of two minutes would fill the memory
        answer.delay_s = LATENCY_S
        return answer

    with chat_server(behave) as server:
        done = vivace(
            "run", "audio-multichallenge", "--data", data, "--model", "litellm:openai/model",
            "--api-base", server.base, "--judge", "litellm:openai/judge", "--judge-api-base", server.base,
            "--judge-prompt", PROMPT,
            "--concurrency", 64, "--home", tmp_path / "home", "--format", "json", timeout=1800,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert (row["n"], row["criteria"], row["met"], row["unscored"], row["coverage"]) == (452, 1712, 1712, 0, 1.0)
    assert (row["apr"], row["ars"], row["hearing"]) == (1.0, 1.0, "passed")
    assert (asked["model"], asked["judge"]) == (452, 1712)
    conversations = open_conversations(str(data))
    expected = Counter(
        sha256(for_model(content, "16k").content)
        for _, turns in conversations.recordings(conversations.conversations)
        for content in turns
    )
    assert expected.total() == arrived.total() == 2350
    assert arrived == expected
