"""`vivace judge`: judge recorded replies again, and find out how far a judge can be trusted."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from vivace.cli.common import (
    DatabaseOption,
    Format,
    FormatOption,
    HomeOption,
    percent,
    print_json,
    print_rows,
    say,
    settings_of,
)
from vivace.cli.running.spec_options import takes_keys
from vivace.cli.tables.board_table import SHORT_AXES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vivace.analysis.judge_calibration import Recorded
    from vivace.settings import Settings
    from vivace.spec import DialogueSpec
    from vivace.store.database import Database


class RunByDefault(TyperGroup):
    """`vivace judge RUN` is `vivace judge run RUN`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Take a first argument that is no command, and looks like no mistyped one, for a run."""
        if args and args[0] not in self.commands and _ID.fullmatch(args[0]):
            args = ["run", *args]
        return super().resolve_command(ctx, args)


_ID = re.compile(r"[0-9a-f]{4,}(\.[0-9a-f]*)?")
"""What names a run or a judging: its id, or how that begins."""

app = typer.Typer(cls=RunByDefault, help="Judges: run again, calibrate, attack, drift.", no_args_is_help=True)


def _keys() -> tuple[str, ...]:
    from vivace.spec import JUDGING_FIELDS

    return JUDGING_FIELDS


def _keys_of_one_vote() -> tuple[str, ...]:
    return tuple(name for name in _keys() if name != "votes")


@app.command()
@takes_keys(_keys)
def run(
    run: Annotated[str, typer.Argument(help="A run, or one of its judgings.")],
    *,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Try again verdicts that are recorded as unscored.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything and say what would be done.")] = False,
    format: FormatOption = Format.TABLE,
    home: HomeOption = None,
    database: DatabaseOption = None,
    flags: dict[str, Any],
) -> None:
    """Judge a run's recorded replies; nothing is generated, and its data need not be at hand.

    The same command again resumes, or finds it done.
    """
    from vivace.cli.running import execution
    from vivace.errors import UsageError
    from vivace.spec import RECORDED
    from vivace.store.identifiers import run_of

    settings = settings_of(home, database)
    opened = _opened(settings)
    run_id = run_of(opened, run)
    opened.close()
    if run_id is None:
        raise UsageError(f"There is no run '{run}'; `vivace leaderboard --format json` shows the ids.")
    spec = _spec(RECORDED + run_id, flags)
    if dry_run:
        execution.show_plans([spec], settings, format)
        return
    outcome = execution.run_here(spec, settings, retry_errors=retry_errors, force=False)
    execution.print_result(outcome, settings, format)
    execution.say_where(outcome, settings)
    raise typer.Exit(outcome.exit_code)


CALIBRATION_COLUMNS = {
    "rater": lambda row: row["rater"],
    "against": lambda row: row["against"],
    "axis": lambda row: SHORT_AXES.get(row["slice"], "all"),
    "criteria": lambda row: str(row["n"]),
    "conversations": lambda row: str(row["conversations"]),
    "κ": lambda row: _estimate(row["kappa"]),
    "macro-F1": lambda row: _estimate(row["macro_f1"]),
    "agree": lambda row: _estimate(row["accuracy"]),
    "constant: F1, agree": lambda row: f"{row['constant']['macro_f1']:.3f}, {row['constant']['accuracy']:.3f}",
    "met for rater / other alone": lambda row: f"{row['confusion']['judge_only']} / {row['confusion']['label_only']}",
    "ARS % → corrected": lambda row: _corrected(row["ars"]),
    "APR % → corrected": lambda row: _corrected(row["apr"]),
}


LABELS_HELP = "JSONL of id, criteria_met (true, false or null, one per rubric item) and optionally labeler."


@app.command()
def label(
    labels: Annotated[Path, typer.Option("--labels", help=LABELS_HELP)],
    judging: Annotated[
        str | None,
        typer.Argument(
            help="A run that has an ended judging, or one of these.", show_default="the only one there is"
        ),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Put labels in the place of other ones by the same person.")
    ] = False,
    home: HomeOption = None,
    database: DatabaseOption = None,
) -> None:
    """Record people's labels of a run's replies, for `calibrate` and for the page of a conversation.

    All or none of a file is recorded; the same file again changes nothing.
    """
    from vivace.analysis.human_labels import record_labels
    from vivace.store.migrate import open_for_writing

    settings = settings_of(home, database)
    named = judging or _only_judging(_opened(settings))
    opened = open_for_writing(settings)
    done = record_labels(opened, named, labels, replace=replace)
    opened.close()
    say(
        f"{done.new} labels of {len(done.labelers)} people are recorded for run {done.run}"
        + (f", {done.changed} are changed" if done.changed else "")
        + (f", {done.known} were there before" if done.known else "")
        + f"; `vivace judge calibrate {done.run}` compares them with a judge."
    )


@app.command()
def calibrate(
    judging: Annotated[
        str | None,
        typer.Argument(help="An ended judging, or a run that has one.", show_default="the only one there is"),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option("--labels", help=LABELS_HELP, show_default="those that `label` has recorded")
    ] = None,
    format: FormatOption = Format.TABLE,
    home: HomeOption = None,
    database: DatabaseOption = None,
) -> None:
    """Compare a judging's verdicts with people's labels, and correct its scores by them.

    The labelled conversations must be a random part of the run.
    """
    from vivace.analysis.judge_calibration import calibrate as calibrate_judging

    opened = _opened(settings_of(home, database))
    rows = calibrate_judging(opened, judging or _only_judging(opened), labels)
    print_rows([row.as_json() for row in rows], format, CALIBRATION_COLUMNS)
    if rows[0].agreement.conversations < 30:
        say("Fewer than 30 labelled conversations: the intervals of κ, macro-F1 and agreement are too narrow.")


ATTACK_COLUMNS = {
    "kind": lambda row: row["kind"],
    "judged wrongly": lambda row: f"{row['wrong']} / {row['n'] - row['unscored']}",
    "%": lambda row: percent(row["rate"]),
    "95 %": lambda row: "–" if row["low"] is None else f"[{percent(row['low'])}–{percent(row['high'])}]",
    "unscored": lambda row: str(row["unscored"] or ""),
    "which": lambda row: (
        ", ".join(name.partition(": ")[2] for name in row["which"][:4]) + (" …" if len(row["which"]) > 4 else "")
    ),
}


@app.command()
@takes_keys(_keys_of_one_vote)
def attack(*, format: FormatOption = Format.TABLE, flags: dict[str, Any]) -> None:
    """Put replies to a judge that try to talk it into "met", and honest ones as controls. Nothing is stored."""
    from vivace.analysis.judge_calibration import attack as attack_judge
    from vivace.analysis.judge_calibration import open_instrument

    spec = _spec("attacks", flags)
    instrument = open_instrument(spec, None)
    report = attack_judge(instrument, spec.concurrency)
    if format is Format.JSON:
        _print_json(
            {
                "judge": instrument.card.name,
                "judge_fingerprint": instrument.card.fingerprint,
                "prompt": instrument.card.prompt.name if instrument.card.prompt else None,
                "sound": report.sound,
                "rows": report.rows,
                "verdicts": [
                    {
                        "name": one.name,
                        "met": verdict.met,
                        "unscored": verdict.unscored,
                        "explanation": verdict.explanation,
                    }
                    for one, verdict in report.results
                ],
            }
        )
    else:
        print_rows(report.rows, format, ATTACK_COLUMNS)
    if report.unscored:
        say(f"{report.unscored} replies got no verdict; they count on neither side, so ask again.")
    elif not report.sound:
        say("The judge misjudges honest replies, so what it makes of the attacks says nothing for it.")
    raise typer.Exit(3 if report.unscored else 0)


DRIFT_COLUMNS = {
    "judging": lambda row: row["judging"],
    "judge": lambda row: f"{row['judge']} {row['judge_fingerprint'][:6]}",
    "changed": lambda row: f"{len(row['changed'])} / {row['compared']}",
    "%": lambda row: percent(row["share"]),
    "κ": lambda row: _estimate(row["kappa"]),
    "unscored": lambda row: str(row["unscored"] or ""),
}


@app.command()
@takes_keys(
    _keys_of_one_vote,
    defaults={"judge": "the recorded one, as it was asked", "judge_prompt": "the recorded judge's prompt"},
)
def drift(
    judging: Annotated[str, typer.Argument(help="An ended judging, or a run that has one.")],
    *,
    limit: Annotated[
        float, typer.Option("--limit", min=0.0, max=1.0, help="The share of changed verdicts that is still well.")
    ] = 0.05,
    format: FormatOption = Format.TABLE,
    home: HomeOption = None,
    database: DatabaseOption = None,
    flags: dict[str, Any],
) -> None:
    """Ask a judge again what is recorded: does it still say the same? Exit code 100 where it does not.

    Nothing is stored but a line in the run's log.
    """
    from vivace.analysis.judge_calibration import drift as judge_again
    from vivace.analysis.judge_calibration import open_instrument, recorded_verdicts
    from vivace.store.migrate import open_for_writing
    from vivace.store.records import add_event

    settings = settings_of(home, database)
    opened = _opened(settings)
    recorded = recorded_verdicts(opened, judging)
    opened.close()
    asked = _recorded_judge(recorded) if flags["judge"] is None else {}
    spec = _spec(recorded.judging, flags, asked)
    instrument = open_instrument(spec, recorded.judge.prompt)
    if instrument.card.fingerprint != recorded.judge.fingerprint:
        say("This is not the recorded judge: target, address, prompt, parameters or parser differ.")
    found = judge_again(recorded, instrument, spec.concurrency)
    too_many = found.share is not None and found.share > limit
    row = {
        "judging": found.judging,
        "judge": instrument.card.name,
        "judge_fingerprint": instrument.card.fingerprint,
        "compared": found.agreement.confusion.n,
        "share": found.share,
        "limit": limit,
        "kappa": vars(found.agreement.kappa),
        "unscored": found.unscored,
        "changed": found.changed,
    }
    writing = open_for_writing(settings)
    with writing.write() as session:
        add_event(
            session,
            f"judge drift: {len(found.changed)} of {found.agreement.confusion.n} verdicts of {found.judging} came "
            f"out differently under {instrument.card.name} {instrument.card.fingerprint[:8]}",
            run_id=found.run,
            level="warning" if too_many else "info",
        )
    writing.close()
    if format is Format.JSON:
        _print_json(row)
    else:
        print_rows([row], format, DRIFT_COLUMNS)
    if format is Format.TABLE:
        _tell_changes(found.changed)
    if found.unscored:
        say(f"{found.unscored} verdicts were not given this time; they count on neither side.")
    raise typer.Exit(100 if too_many else 3 if found.unscored else 0)


def _recorded_judge(recorded: Recorded) -> dict[str, Any]:
    """What the spec of a judging says of its judge.

    Raises:
        UsageError: the verdicts were not given here by one judge.
    """
    from vivace.errors import UsageError

    judge = recorded.judge
    if judge.target.startswith("import:"):
        raise UsageError(f"The verdicts of {recorded.judging} come from elsewhere; name a judge with --judge.")
    if "," in judge.target:
        raise UsageError(f"{recorded.judging} was judged by several; name one of them with --judge.")
    arguments = {key: json.loads(value) for key, value in judge.parameters.items()}
    return {"judge": judge.target, "judge-api-base": judge.address, "judge-arg": arguments}


def _tell_changes(changed: Sequence[dict[str, Any]]) -> None:
    """Say which verdicts came out differently, as far as they fit on a screen."""
    if changed:
        say(f"{len(changed)} verdicts changed (--format json gives all, with reasons):")
    for change in changed[:20]:
        now = "met" if change["now"] else "not met"
        say(f"  {change['conversation']} #{change['number']}  now {now}  {change['criterion'][:80]}")


def _spec(subject: str, flags: dict[str, Any], recorded: dict[str, Any] | None = None) -> DialogueSpec:
    """A spec whose judge is all that matters; what is judged is the subject."""
    from vivace.cli.running.execution import spec_from
    from vivace.spec import DialogueSpec

    whole = {"track": "audio-multichallenge", "data": subject, "model": subject, **(recorded or {})}
    spec = spec_from(whole, flags)
    assert isinstance(spec, DialogueSpec)
    return spec


def _only_judging(database: Database) -> str:
    from vivace.errors import UsageError
    from vivace.store.verdicts import standing_judgings

    found = [card.judging for card in standing_judgings(database)]
    if len(found) != 1:
        raise UsageError(
            f"There are {len(found)} ended judgings; name the one that was labelled, as `vivace leaderboard --format "
            "json` shows it."
        )
    return found[0]


def _opened(settings: Settings) -> Database:
    from vivace.errors import UsageError
    from vivace.store.migrate import open_for_reading

    opened = open_for_reading(settings)
    if opened is None:
        raise UsageError("There is no database yet, so there is nothing judged; `vivace run` makes one.")
    return opened


def _print_json(value: dict[str, Any]) -> None:
    print_json(value)


def _estimate(figure: dict[str, float | None]) -> str:
    if figure["value"] is None:
        return "–"
    interval = "" if figure["low"] is None else f" [{figure['low']:.3f}, {figure['high']:.3f}]"
    return f"{figure['value']:.3f}{interval}"


def _corrected(rate: dict[str, Any]) -> str:
    if rate["corrected"] is None:
        return "–"
    interval = "" if rate["low"] is None else f" [{percent(rate['low'])}–{percent(rate['high'])}]"
    return f"{percent(rate['judged'])} → {percent(rate['corrected'])}{interval}"
