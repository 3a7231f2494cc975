"""`--dry-run` tells what a run would take: calls, sound, tokens, dollars and the keys that are missing."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from support.datasets import conversation_rows, write_jsonl, write_parquet
from support.program import vivace
from vivace.errors import UsageError
from vivace.spec import DialogueSpec
from vivace.tracks.dialogue.data.readers import open_conversations
from vivace.tracks.dialogue.estimate import Prices, estimated
from vivace.tracks.dialogue.judging.judges import OpenJudge
from vivace.tracks.dialogue.track import require_prices

RUN = ("run", "audio-multichallenge", "--dry-run", "--format", "json")
PRICED = ("--model", "litellm:openai/gpt-audio", "--judge", "litellm:openai/o4-mini")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four conversations of three turns, with two criteria each and 3.6 seconds of sound."""
    return write_parquet(tmp_path / "set.parquet", conversation_rows(4))


def plan(data: Path, *arguments: object) -> dict[str, Any]:
    """What a run would take, in the data's folder, with a key that is asked for nothing."""
    done = vivace(*RUN, "--data", data, *arguments, cwd=data.parent, OPENAI_API_KEY="none-that-works")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    return dict(row)


def test_calls_probes_tokens_and_dollars_are_counted(data: Path) -> None:
    one = plan(data, *PRICED)
    assert (one["model calls"], one["hearing probes"], one["judge calls"]) == (4, 3, 8)
    assert one["minutes of audio"] == 0.1
    assert 0 < one["cost of the model, $"] < 1 and 0 < one["cost of the judge, $"] < 1
    assert one["cost, $"] == pytest.approx(one["cost of the model, $"] + one["cost of the judge, $"], abs=0.006)
    more = plan(data, *PRICED, "--repeats", 3, "--votes", 5)
    assert (more["model calls"], more["hearing probes"], more["judge calls"]) == (12, 3, 120)
    assert more["judge tokens"] == 15 * one["judge tokens"]
    assert more["cost of the judge, $"] == pytest.approx(15 * one["cost of the judge, $"], rel=0.1)
    assert plan(data, *PRICED, "--no-hear")["hearing probes"] == 0
    written = plan(data, "--model", "litellm:openai/gpt-4o", *PRICED[2:], "--audio", "transcript")
    assert written["hearing probes"] == 0 < written["cost of the model, $"] < one["cost of the model, $"]


def test_a_price_that_nobody_knows_is_unknown_and_never_nothing(data: Path) -> None:
    mine = ("--model", "litellm:openai/my-model", "--judge", "checks")
    one = plan(data, *mine)
    assert (one["cost of the model, $"], one["cost of the judge, $"], one["cost, $"]) == ("unknown", 0.0, "unknown")
    assert one["model tokens"] > 0 and one["judge calls"] == 0
    named = plan(data, *mine, "--price", "2,8")
    assert named["cost, $"] == named["cost of the model, $"] > 0
    other = plan(data, *PRICED[:2], "--judge", "litellm:openai/my-judge")
    assert other["cost of the model, $"] > 0 and other["cost, $"] == "unknown"


def test_an_ensemble_calls_its_models_alone(data: Path) -> None:
    both = plan(data, *PRICED[:2], "--judge", "checks,litellm:openai/o4-mini", "--votes", 2)
    assert both["judge calls"] == 16


def test_spoken_answers_and_their_transcriber_are_counted(data: Path) -> None:
    spoken = ("--output", "audio", "--transcriber", "litellm:openai/whisper-1")
    one = plan(data, *PRICED, *spoken)
    assert one["transcriber calls"] == 7 and one["cost of the transcriber, $"] > 0
    assert one["cost of the model, $"] > plan(data, *PRICED)["cost of the model, $"]
    unlisted = plan(data, *PRICED, "--output", "audio", "--transcriber", "litellm:openai/my-ears")
    assert (unlisted["cost of the transcriber, $"], unlisted["cost, $"]) == ("unknown", "unknown")


@pytest.mark.parametrize("voice", ["tts-1:alloy", "gpt-4o-mini-tts:alloy", "my-voice:one"])
def test_a_cascades_voice_is_paid_by_the_character_or_the_second_and_a_cap_needs_its_price(
    voice: str, data: Path
) -> None:
    prices = Prices(ear="litellm:openai/whisper-1", voice=f"litellm:openai/{voice}")
    told = estimated(
        open_conversations(str(data)).conversations, seconds={}, repeats=1, asked="cascade:litellm:openai/gpt-4o",
        speaks=True, is_checked=False, judged=frozenset(), judge=OpenJudge((), 1), prices=prices,
    )  # fmt: skip
    known = voice != "my-voice:one"
    assert told["voice calls"] == 4 and (told["cost of the voice, $"] != "unknown") is (told["cost, $"] != "unknown")
    assert known is (told["cost, $"] != "unknown")
    spec = DialogueSpec(
        track="audio-multichallenge", data="demo", model="cascade:litellm:openai/gpt-4o", ear=prices.ear,
        output="audio", voice=prices.voice, judge="checks", max_cost=1.0,
    )  # fmt: skip
    with nullcontext() if known else pytest.raises(UsageError, match="of the voice 'litellm:openai/my-voice:one'"):
        require_prices(spec)


def test_the_minutes_are_the_same_in_a_used_home_and_recorded_replies_cost_nothing(data: Path) -> None:
    replies = write_jsonl(data.parent / "r.jsonl", [{"id": "conversation0001", "response": "yes"}])
    replay = ("--model", f"replay:{replies}", "--judge", "litellm:openai/o4-mini")
    before = plan(data, *replay)
    assert (before["model calls"], before["hearing probes"], before["judge calls"]) == (0, 0, 2)
    assert before["cost of the model, $"] == 0.0 < before["cost of the judge, $"]
    run = ("run", "audio-multichallenge", "--data", data, "--model", f"replay:{replies}", "--judge", "checks")
    assert vivace(*run, "--items", "conversation0001,conversation0002", cwd=data.parent).returncode == 3
    assert plan(data, *replay) == before
    assert plan(data, *PRICED)["minutes of audio"] == before["minutes of audio"] == 0.1


def test_a_missing_key_is_found_and_the_plan_is_printed_all_the_same(data: Path) -> None:
    own_server = ("--api-base", "http://127.0.0.1:9/v1")
    for missing in (PRICED, (*PRICED, *own_server), ("--model", "openai-realtime:gpt-realtime")):
        done = vivace(*RUN, "--data", data, *missing, cwd=data.parent)
        assert done.returncode == 2 and "OPENAI_API_KEY" in done.stderr
        assert json.loads(done.stdout)[0]["conversations"] == 4
    assert vivace(*RUN, "--data", data, *PRICED[:2], *own_server, "--judge", "checks").returncode == 0
