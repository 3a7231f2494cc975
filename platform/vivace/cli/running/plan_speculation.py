"""`vivace plan speculation`: will drafting ahead pay on a model, as a chain or as a tree, and under which budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vivace.cli.common import Format, FormatOption, HomeOption, print_json, print_rows, say, settings_of
from vivace.machine.optional_packages import require_torch

if TYPE_CHECKING:
    from vivace.analysis.speculation.planning import SpeculationPlan

COLUMNS = {
    "drafted": lambda row: row["form"],
    "times as fast": lambda row: _interval(row, "speed"),
    "at the floor": lambda row: _interval(row, "speed_at_floor"),
    "tokens a step": lambda row: f"{row['tau']:.2f}",
    "plain steps it takes": lambda row: f"{row['steps']:.2f}",
    "experts": lambda row: f"{row['experts']:.1f}",
    "quality lost": lambda row: _interval(row, "lost"),
    "": lambda row: "proposed" if row["proposed"] else "at the floor" if row["proposed_at_floor"] else "",
}


def plan_speculation(
    model: Annotated[str, typer.Option("--model", help="zoo:NAME, packaged:NAME, local:FOLDER or "
                                     "local:ID@REVISION.")],
    drafter: Annotated[str, typer.Option("--drafter", help="An EAGLE-3 drafter made for it: a folder or zoo:NAME.")],
    tasks: Annotated[str, typer.Option("--tasks", help="What is asked, with commas between.")] = "sums,code,json",
    limit: Annotated[int, typer.Option("--limit", min=1, help="Prompts of each task.")] = 8,
    chains: Annotated[str, typer.Option("--chains", help="Drafts of each chain; '' for none.")] = "1,2,4",
    trees: Annotated[str, typer.Option("--trees", help="Tokens of each tree, its root among them; '' for "
                                     "none.")] = "8,16,32",
    budgets: Annotated[str | None, typer.Option("--budgets", help="Experts that a pass may read in a layer; '' for "
                                                "no budget.", show_default="1, 2 and 4 times a token's")] = None,
    tolerance: Annotated[float, typer.Option("--tolerance", min=0, max=1, help="Of quality that may be lost: of the "
                                             "tasks' score, from 0 to 1.")] = 0.02,
    most_tokens: Annotated[int | None, typer.Option("--most-tokens", min=2, help="Of an answer.",
                                                    show_default="each task's own")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Chooses the prompts.")] = 0,
    device: Annotated[str, typer.Option("--device", help="cpu or cuda.")] = "cpu",
    dtype: Annotated[str, typer.Option("--dtype", help="float32, bfloat16 or float16.")] = "float32",
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Of the processor.",
                                                show_default="one a core; zoo: one")] = None,
    format: FormatOption = Format.TABLE,
    home: HomeOption = None,
) -> None:  # fmt: skip
    """Say whether speculation will pay, and propose a chain or tree and a budget for a tolerance of quality.

    Every form answers half of the prompts; what it is expected to bring follows from its acceptance there, from the
    time of a pass by the experts that it reads, and from this machine's floor. The proposal is judged on the other
    half.
    """
    from vivace.errors import UsageError

    require_torch()
    from vivace.analysis.speculation.trial import AskedPlan, tried
    from vivace.cli.running.steps import steps_of
    from vivace_methods.protocol import MethodError
    from vivace_methods.spelling import split_list

    asked = AskedPlan(
        model=model,
        drafter=drafter,
        tasks=split_list(tasks),
        limit=limit,
        chains=_numbers(chains, "--chains"),
        trees=_numbers(trees, "--trees"),
        budgets=None if budgets is None else _numbers(budgets, "--budgets"),
        most_tokens=most_tokens,
        seed=seed,
        device=device,
        dtype=dtype,
        threads=threads,
        home=settings_of(home, None).home,
    )
    try:
        with steps_of("answers", None) as tell:
            plan = tried(asked, tolerance, lambda done, whole: tell(done, "", whole))
    except MethodError as error:
        raise UsageError(str(error)) from error
    _print(plan, format)


def _print(plan: SpeculationPlan, format: Format) -> None:
    if format is Format.JSON:
        print_json(
            {
                "proposed": plan.here,
                "proposed_at_floor": plan.at_floor,
                "judged": None if plan.judged is None else asdict(plan.judged),
                "judged_at_floor": None if plan.judged_at_floor is None else asdict(plan.judged_at_floor),
                "forms": plan.rows,
                "passes": plan.pass_rows,
            }
        )
    else:
        print_rows(plan.rows, format, COLUMNS)
    for sentence in plan.sentences:
        say(sentence)


def _numbers(text: str, option: str) -> Sequence[int]:
    from vivace.errors import UsageError

    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise UsageError(f"{option} takes whole numbers with commas between, and not '{text}'.") from error


def _interval(row: dict[str, Any], name: str) -> str:
    if row[f"{name}_low"] is None:
        return f"{row[name]:.2f}"
    return f"{row[name]:.2f} ({row[f'{name}_low']:.2f}–{row[f'{name}_high']:.2f})"
