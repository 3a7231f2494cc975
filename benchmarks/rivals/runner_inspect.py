"""The runner benchmark's work as an inspect_ai task; runs in inspect_ai's own environment, without Vivace."""

# mypy: disable-error-code="import-not-found, untyped-decorator"

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from inspect_ai import Task, eval, task
from inspect_ai.dataset import json_dataset
from inspect_ai.model import GenerateConfig, Model, ResponseSchema, get_model
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr
from inspect_ai.solver import TaskState, generate
from inspect_ai.util import JSONSchema, collect

VERDICT = ResponseSchema(
    name="verdict",
    strict=True,
    json_schema=JSONSchema(
        type="object",
        properties={"explanation": JSONSchema(type="string"), "criteria_met": JSONSchema(type="boolean")},
        required=["explanation", "criteria_met"],
        additionalProperties=False,
    ),
)


@scorer(metrics=[mean(), stderr()])
def rubric(judge: Model, prompt: str) -> Scorer:
    """One judge call for each criterion, all at once; the score is the share that is met."""

    async def verdict(history: str, criterion: str) -> dict[str, object]:
        asked = prompt.replace("«conversation_history»", history).replace("«rubric_item»", criterion)
        answer = json.loads((await judge.generate(asked)).completion)
        return {"explanation": str(answer["explanation"]), "met": bool(answer["criteria_met"])}

    async def score(state: TaskState, target: Target) -> Score:
        history = f"{state.metadata['history']}\n\nAssistant: {state.output.completion}"
        verdicts = await collect(*(verdict(history, criterion) for criterion in state.metadata["criteria"]))
        share = sum(bool(found["met"]) for found in verdicts) / len(verdicts)
        return Score(value=share, answer=state.output.completion, metadata={"verdicts": verdicts})

    return score


@task
def dialogue(data: str, judge_api_base: str, concurrency: int) -> Task:
    """Spoken conversations, one reply each, judged by rubric."""
    folder = Path(data)
    judge = get_model(
        "openai/judge",
        base_url=judge_api_base,
        responses_api=False,
        config=GenerateConfig(response_schema=VERDICT, max_connections=concurrency),
    )
    prompt = (folder / "prompt.txt").read_text(encoding="utf-8")
    return Task(dataset=json_dataset(str(folder / "samples.jsonl")), solver=generate(), scorer=rubric(judge, prompt))


def main() -> int:
    """Run the task once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="a folder made by conversations.py")
    parser.add_argument("--api-base", required=True)
    parser.add_argument("--judge-api-base", required=True)
    parser.add_argument("--concurrency", type=int, required=True)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--logs", required=True)
    options = parser.parse_args()
    (log,) = eval(
        dialogue(options.data, options.judge_api_base, options.concurrency),
        model="openai/loopback",
        model_base_url=options.api_base,
        model_args={"responses_api": False},
        max_connections=options.concurrency,
        max_samples=options.concurrency,
        max_tasks=1,
        limit=options.limit,
        display="none",
        log_level="warning",
        log_dir=options.logs,
    )
    return 0 if log.status == "success" else 1


if __name__ == "__main__":
    sys.exit(main())
