"""Speculation end to end on the zoo's mixture of experts: chains and trees under budgets, quality against bytes."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from report import BenchmarkError, Row, estimated

from vivace.analysis.speculation.planning import FEWEST_PROMPTS, SpeculationPlan, plan_speculation
from vivace.analysis.speculation.sweep import (
    PLAIN,
    Answers,
    DraftForm,
    agreement,
    experts_of,
    forms_of,
    lost,
    scores_of,
    share,
    swept,
)
from vivace.tracks.efficiency.measured_models import find_target, folder_of_fitted, loaded
from vivace.tracks.efficiency.prompts import PlannedPrompt, plan_tasks
from vivace.tracks.efficiency.session.token_prompts import timed_prompt
from vivace_methods.speculation.prospects.answers import Answer
from vivace_methods.speculation.prospects.outlook import measured_speed, ratio_of_sums
from vivace_methods.timing.floor import FloorProbe
from vivace_methods.timing.ratios import Estimate

MODEL, DRAFTER = "zoo:moe", "zoo:moe-drafter"
TASKS = ("sums(operation=addition)", "sums(operation=subtraction)", "code", "json")
SEED = 1
MOST_TOKENS = 96
TOLERANCE = 0.02
"""Of the score, that may be lost."""


@dataclass(frozen=True)
class Size:
    """How much is asked.

    Attributes:
        asked: prompts of each task.
        chains: drafts of each chain.
        trees: tokens of each tree.
        budgets: experts of 32 that a pass may read in a layer.
    """

    asked: int = 24
    chains: Sequence[int] = (1, 2, 3, 4, 5, 6, 7, 8)
    trees: Sequence[int] = (4, 8, 16, 32, 64)
    budgets: Sequence[int] = (4, 6, 8, 12, 16, 24, 32)


FULL = Size()
QUICK = Size(asked=3, chains=(3,), trees=(16,), budgets=(8,))


class Record:
    """Answers so far, a line of JSON each, in a file that the same command goes on with.

    Args:
        path: of the file; None keeps nothing. It may hold answers to fewer prompts or more, by other forms, too.

    Raises:
        BenchmarkError: the file is of another benchmark, or of other prompts.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.answers: Answers = {}
        asked = {"model": MODEL, "seed": SEED, "most_tokens": MOST_TOKENS, "tasks": list(TASKS)}
        if path is None:
            return
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(asked) + "\n", encoding="utf-8")
            return
        first, *lines = path.read_text(encoding="utf-8").splitlines() or [""]
        if first != json.dumps(asked):
            raise BenchmarkError(f"{path} holds answers to other prompts: name another file with --record.")
        for number, line in enumerate(lines):
            try:
                arm, prompt, written = json.loads(line)
            except ValueError:  # the last line of a run that was killed while it was written
                if number < len(lines) - 1:
                    raise BenchmarkError(f"Line {number + 2} of {path} is no answer.") from None
                path.write_text("\n".join([first, *lines[:-1], ""]), encoding="utf-8")
                continue
            self.answers.setdefault(arm, {})[prompt] = Answer.from_json(written)

    def add(self, arm: str, prompt: str, answer: Answer) -> None:
        """Write one down."""
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([arm, prompt, answer.as_json()]) + "\n")


@dataclass(frozen=True)
class Found:
    """All answers, with what they are worth.

    Attributes:
        forms: that were tried.
        prompts: that were answered.
        answers: of each form and of plain decoding.
        scores: of each, by prompt.
        plan: what `vivace plan speculation` says of the same answers; None where they are too few.
    """

    forms: Sequence[DraftForm]
    prompts: Sequence[PlannedPrompt]
    answers: Answers
    scores: Mapping[str, Mapping[str, float]]
    plan: SpeculationPlan | None


def measured(size: Size, record: Path | None = None) -> Found:
    """Every form's answers to the prompts of all tasks.

    Args:
        size: how much.
        record: where answers are kept.

    Raises:
        BenchmarkError: a record of other prompts.
    """
    home = Path("nowhere")  # the zoo's models come with Vivace
    planned = plan_tasks(TASKS, size.asked, SEED, MOST_TOKENS)
    kept = Record(record)
    target = find_target(MODEL, None, home)
    assert target.checkpoint is not None
    model, tokenizer = loaded(target.checkpoint.fetched(), None, None, dtype="float32", device="cpu", seed=SEED)
    forms = forms_of(size.chains, size.trees, size.budgets, *experts_of(model))
    timed = [timed_prompt(prompt, model, tokenizer)[0] for prompt in planned.prompts]
    weights = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    probe = FloorProbe(model.device, dtypes=[torch.float32], working_set=weights)
    probe.again(2)
    arms, names = {PLAIN, *(form.name for form in forms)}, {prompt.name for prompt in timed}
    done = {
        arm: {name: answer for name, answer in its.items() if name in names}
        for arm, its in kept.answers.items()
        if arm in arms
    }
    count, whole = sum(map(len, done.values())), len(arms) * len(names)

    def on_answer(arm: str, prompt: str, answer: Answer) -> None:
        nonlocal count
        count += 1
        kept.add(arm, prompt, answer)
        if count % 250 == 0:
            print(f"{count} of {whole} answers", file=sys.stderr)

    answers = swept(
        model, forms, timed, DRAFTER, probe=probe, folder_of=folder_of_fitted(home / "zoo"), done=done,
        on_answer=on_answer,
    )  # fmt: skip
    scores = {arm: scores_of(its, planned.prompts, tokenizer) for arm, its in answers.items()}
    enough = len(planned.prompts) >= FEWEST_PROMPTS
    plan = plan_speculation(answers, forms, planned.prompts, tokenizer, TOLERANCE) if enough else None
    return Found(forms, planned.prompts, answers, scores, plan)


def figures_of(found: Found) -> list[dict[str, Any]]:
    """Of each form: acceptance, quality and bytes for each token beside plain decoding.

    On the frontier is what no other beats in both score and bytes; plain decoding takes part.
    """
    plain, plain_scores = found.answers[PLAIN], found.scores[PLAIN]
    alone = Estimate(1.0, 1.0, 1.0, len(plain))
    rows: list[dict[str, Any]] = [
        {"form": PLAIN, "score": _json(share(plain_scores.values())), "bytes": _json(alone)}
    ]
    for form in found.forms:
        its, scores = found.answers[form.name], found.scores[form.name]
        names = [name for name in its if its[name].given and plain[name].given]
        given, passes = zip(*((sum(its[name].given), len(its[name].given)) for name in names), strict=True)
        rows.append(
            {
                "form": form.name,
                "tokens": form.tokens,
                "tree": form.is_tree,
                "budget": form.budget,
                "tau": _json(ratio_of_sums(given, passes)),
                "score": _json(share(scores.values())),
                "score_lost": _json(lost(its, plain, scores, plain_scores)),
                "agreement": _json(share([agreement(its[name], plain[name]) for name in its])),
                "same_answers": _json(share([float(its[name].tokens == plain[name].tokens) for name in its])),
                "experts": fmean(count for name in names for count in its[name].experts),
                "bytes": _json(bytes_beside(its, plain)),
                "speed": _json(measured_speed(its, plain)),
            }
        )
    for row in rows:
        row["frontier"] = not any(_beats(other, row) for other in rows)
    return rows


def _beats(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether a form is better in score or bytes, and in neither worse."""
    scores = one["score"]["value"] - other["score"]["value"]
    bytes_saved = other["bytes"]["value"] - one["bytes"]["value"]
    return scores >= 0 and bytes_saved >= 0 and (scores > 0 or bytes_saved > 0)


def bytes_beside(arm: Mapping[str, Answer], other: Mapping[str, Answer]) -> Estimate:
    """Bytes that an arm moved for each token after the first, over those of another for the same prompts."""
    names = [name for name in arm if arm[name].given and other[name].given]
    each = [sum(arm[name].given) * other[name].moved / sum(other[name].given) for name in names]
    return ratio_of_sums([arm[name].moved for name in names], each)


def rows_of(found: Found) -> list[Row]:
    """Bytes for each token: of every form beside plain decoding, and of budgets beside no budget."""
    rows = []
    for form in found.forms:
        case = f"{MODEL}, {form.name}"
        arm = "eagle3" if form.budget is None else "moe-spec"
        its = found.answers[form.name]
        rows.append(estimated(case, arm, PLAIN, "bytes_per_token", bytes_beside(its, found.answers[PLAIN])))
        if form.budget is not None:
            whole = found.answers[DraftForm(form.tokens, form.is_tree).name]
            rows.append(estimated(case, arm, "eagle3", "bytes_per_token", bytes_beside(its, whole)))
    return rows


def joined(
    passes: Sequence[Mapping[str, Any]], figures: Sequence[Mapping[str, Any]], shares: Mapping[int, int]
) -> list[dict[str, Any]]:
    """On paper: what the measured passes would give with the acceptance of the zoo's trees, drafting not counted.

    Args:
        passes: as `break_even` of the passes tells them.
        figures: as `figures_of` tells them.
        shares: budget of the passes → the same part of the zoo's experts.
    """
    trees = {(row["tokens"], row["budget"]): row for row in figures if row.get("tree")}
    found = []
    for one in passes:
        budget = None if one["budget"] is None else shares.get(one["budget"])
        tree = trees.get((one["tokens"], budget))
        if tree is None or (one["budget"] is not None and budget is None):
            continue
        tau = tree["tau"]
        found.append(
            {
                "dtype": one["dtype"],
                "tokens": one["tokens"],
                "budget": one["budget"],
                "tau": tau["value"],
                "steps": one["steps"],
                "speed": tau["value"] / one["steps"],
                "speed_low": None if tau["low"] is None else tau["low"] / one["steps"],
                "speed_high": None if tau["high"] is None else tau["high"] / one["steps"],
                "score_lost": tree["score_lost"]["value"],
            }
        )
    return found


def print_figures(figures: Sequence[Mapping[str, Any]]) -> None:
    """For people."""
    print(f"\n{MODEL}: acceptance, quality and bytes for each token beside plain decoding; * is on the frontier")
    for row in figures:
        if row["form"] == PLAIN:
            print(f"{PLAIN:<18} score {_text(row['score'])}")
            continue
        mark = "*" if row["frontier"] else " "
        print(
            f"{row['form']:<18}{mark} τ {_text(row['tau'])}  score {_text(row['score'])}  lost "
            f"{_text(row['score_lost'])}  agreement {_text(row['agreement'])}  experts {row['experts']:.1f}  bytes "
            f"{_text(row['bytes'])}"
        )


def honest_table(figures: Sequence[Mapping[str, Any]]) -> str:
    """For each form what it beats in bytes for each token, and what it costs, as Markdown.

    It beats plain decoding, or the best form without a budget, where its interval lies below theirs.
    """
    exact = [row for row in figures if row["form"] != PLAIN and row["budget"] is None]
    best = min(exact, key=lambda row: row["bytes"]["value"])
    lines = [
        "| form | tokens a pass (τ) | bytes for each token, plain decoding = 1 | beats plain decoding | beats the "
        f"best EAGLE-3 ({best['form']}, {best['bytes']['value']:.2f}) | score lost | agreement |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in figures:
        if row["form"] == PLAIN:
            continue
        high = row["bytes"]["high"] if row["bytes"]["high"] is not None else row["bytes"]["value"]
        beats = ["yes" if high < bound else "no" for bound in (1.0, best["bytes"]["low"] or best["bytes"]["value"])]
        lines.append(
            f"| {row['form']} | {row['tau']['value']:.2f} | {_short(row['bytes'])} | {beats[0]} | {beats[1]} | "
            f"{_short(row['score_lost'])} | {row['agreement']['value']:.2f} |"
        )
    return "\n".join(lines)


def _short(figure: Mapping[str, Any]) -> str:
    if figure["low"] is None:
        return f"{figure['value']:.2f}"
    return f"{figure['value']:.2f} [{figure['low']:.2f}–{figure['high']:.2f}]"


def print_joined(found: Sequence[Mapping[str, Any]]) -> None:
    """For people."""
    print("\nan estimate, drafting not counted: the passes above with the acceptance of the zoo's trees")
    for one in found:
        bound = "no budget" if one["budget"] is None else f"B={one['budget']}"
        spread = "" if one["speed_low"] is None else f" ({one['speed_low']:.2f} to {one['speed_high']:.2f})"
        verdict = "" if (one["speed_low"] or one["speed"]) > 1 else "  plain decoding wins"
        print(
            f"{one['dtype']:>8}  {one['tokens']:>3} tokens  {bound:>9}  τ {one['tau']:.2f} in {one['steps']:.2f} "
            f"steps: {one['speed']:.2f}{spread} times as fast, {one['score_lost']:.3f} of the score lost{verdict}"
        )


def _json(estimate: Estimate) -> dict[str, Any]:
    return asdict(estimate)


def _text(figure: Mapping[str, Any]) -> str:
    if figure["low"] is None:
        return f"{figure['value']:.3f}"
    return f"{figure['value']:.3f} ({figure['low']:.3f}–{figure['high']:.3f})"
