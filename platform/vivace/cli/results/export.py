"""`vivace export`: every criterion of a judging with its verdict, or every trial of arms, for other tools."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vivace.cli.common import DatabaseOption, HomeOption, say, settings_of, write_text
from vivace.output.printable import csv_text, json_text
from vivace.output.secrets import without_keys_inside

if TYPE_CHECKING:
    from vivace.store.database import Database


class ExportFormat(StrEnum):
    """How items are written."""

    JSONL = "jsonl"
    JSON = "json"
    CSV = "csv"
    PARQUET = "parquet"


class ExportForm(StrEnum):
    """In whose form."""

    ITEMS = "items"
    EVAL_RESULTS = "eval-results"
    EVERY_EVAL_EVER = "every-eval-ever"


PARQUET_TYPES = {
    "judging": "string", "model": "string", "judge": "string", "conversation": "string", "axis": "string",
    "repeat": "int32", "criterion": "int32", "criterion_text": "string", "vote": "int32", "met": "bool",
    "unscored_reason": "string", "explanation": "string", "labels": "string", "reply": "string",
    "reply_raw_text": "string", "reply_unscored_reason": "string", "heard": "string", "kept_share": "double",
    "ttft_s": "double", "total_s": "double", "times": "string", "retracted": "string",
}  # fmt: skip
"""The columns of a Parquet file: the same whatever the rows hold, so that files of several runs go together."""
TRIAL_TYPES = {
    "run": "string", "arm": "string", "prompt": "string", "repetition": "int32", "session": "string",
    "place": "int32", "ttft_s": "double", "total_s": "double", "output_tokens": "int32", "quality": "double",
    "bytes": "double", "flops": "double", "floor_s": "double", "answer": "string", "tokens": "string",
    "emitted_s": "string", "step_tokens": "string", "figures": "string", "unscored_reason": "string",
    "retracted": "string",
}  # fmt: skip
"""The same, of the efficiency tracks; lists and figures are JSON."""
FOREIGN_TYPES = {
    "result": "string", "tool": "string", "tool_version": "string", "task": "string", "task_version": "string",
    "data": "string", "model": "string", "score": "string", "more_is_better": "bool", "made_at": "string",
    "settings": "string", "reported": "string", "planned": "int32", "scored": "int32", "independent": "bool",
    "notes": "string", "retracted": "string", "sample": "string", "attempt": "int32", "asked": "string",
    "text": "string", "value": "double", "unscored_reason": "string", "counted": "double",
}  # fmt: skip
"""The same, of what other tools measured."""


def export(
    judging: Annotated[
        str, typer.Argument(help="A judging's, run's or other tool's result's id, as the leaderboard's JSON has it.")
    ],
    format: Annotated[ExportFormat, typer.Option("--format", help="How items are written.")] = ExportFormat.JSONL,
    form: Annotated[
        ExportForm,
        typer.Option(
            "--as",
            help="items: a row each. eval-results: YAML for the model's card on the Hugging Face hub. "
            "every-eval-ever: records of that schema, below the folder --output.",
        ),
    ] = ExportForm.ITEMS,
    dataset_id: Annotated[
        str | None,
        typer.Option("--dataset-id", help="eval-results: the benchmark's dataset on the hub.", metavar="OWNER/NAME"),
    ] = None,
    source_url: Annotated[
        str | None, typer.Option("--source-url", help="eval-results: a page that shows the results.", metavar="URL")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A file; its format is --format. Or a folder.", show_default="stdout"),
    ] = None,
    home: HomeOption = None,
    database: DatabaseOption = None,
) -> None:
    """Write one row per reply and criterion, with its verdict.

    Conversation, axis, repeat, sentence, vote, verdict, reason, people's labels, reply, what an ear heard, times.
    Vote 0 is the one that counts. Of a run of the efficiency tracks: one row per trial, with tokens, times and
    quality. Of a run's judgings those that were retracted are left out, unless there are no others.
    """
    from vivace.errors import UsageError
    from vivace.store.identifiers import judgings_of, run_of
    from vivace.store.migrate import open_for_reading
    from vivace.store.queries.conversation import item_rows
    from vivace.store.queries.efficiency import trial_rows
    from vivace.store.queries.foreign import foreign_items

    if format is ExportFormat.PARQUET and output is None:
        raise UsageError("Parquet is no text; name a file with --output.")
    opened = open_for_reading(settings_of(home, database))
    foreign = None if opened is None else foreign_items(opened, judging)
    if foreign is not None:
        if form is not ExportForm.ITEMS or dataset_id is not None or source_url is not None:
            raise UsageError(f"'{judging}' was measured by another tool, and is passed on as items alone.")
        _write_rows(foreign, format, output, FOREIGN_TYPES)
        return
    run = None if opened is None else run_of(opened, judging)
    found = [] if opened is None else judgings_of(opened, judging)
    trials = [] if opened is None or run is None or found else trial_rows(opened, run)
    if opened is None or not (found or trials):
        raise UsageError(f"There is no judging or run '{judging}'; `vivace leaderboard --format json` shows the ids.")
    if form is not ExportForm.ITEMS:
        if trials or len(found) != 1:
            raise UsageError(f"--as {form.value} takes one judging of the dialogue track; '{judging}' is none.")
        _write_form(opened, found[0], form, output, dataset_id, source_url)
        return
    if dataset_id is not None or source_url is not None:
        raise UsageError("--dataset-id and --source-url go with --as eval-results.")
    rows = trials or [row for one in found for row in item_rows(opened, one)]
    for reason in dict.fromkeys(row["retracted"] for row in rows if row["retracted"] is not None):
        say(f"Retracted: {reason}")
    _write_rows(rows, format, output, TRIAL_TYPES if trials else PARQUET_TYPES)


def _write_rows(rows: list[dict[str, Any]], format: ExportFormat, output: Path | None, types: dict[str, str]) -> None:
    if output is None:
        typer.echo(_text(rows, format), nl=False)
        return
    if format is ExportFormat.PARQUET:
        _write_parquet(rows, output, types)
    else:
        write_text(output, _text(rows, format))
    say(f"{len(rows)} rows written to {output}")


def _write_form(
    database: Database,
    judging: str,
    form: ExportForm,
    output: Path | None,
    dataset_id: str | None,
    source_url: str | None,
) -> None:
    from vivace.errors import UsageError
    from vivace.interchange.eval_results import eval_results_yaml
    from vivace.interchange.every_eval_ever import write_records
    from vivace.interchange.judged import judged_of
    from vivace.store.identifiers import judgings_of
    from vivace.store.visibility import NOBODY

    # What goes to other tools is meant for others, who see no private run and no item of a hidden set.
    public = database.seen_by(NOBODY)
    if judging not in judgings_of(public, judging):
        raise UsageError(
            f"'{judging}' is of a private run, and is not passed on; `vivace visibility {judging} public` makes it "
            "public, and --as items is for yourself."
        )
    judged = judged_of(public, judging)
    if judged.row.retracted is not None:
        raise UsageError(f"'{judging}' was retracted ({judged.row.retracted}); it is not passed on.")
    match form:
        case ExportForm.EVAL_RESULTS:
            text = eval_results_yaml(judged.row, dataset_id, source_url)
            if output is None:
                typer.echo(text, nl=False)
            else:
                write_text(output, text)
        case ExportForm.EVERY_EVAL_EVER:
            if output is None:
                raise UsageError("Records of Every Eval Ever are several files; name a folder with --output.")
            try:
                written = write_records(judged, output)
            except OSError as error:
                raise UsageError(f"'{output}' cannot be written ({error.strerror}).") from error
            for path in written:
                typer.echo(path)


def _text(rows: list[dict[str, Any]], format: ExportFormat) -> str:
    if format is ExportFormat.CSV:
        return csv_text([{name: _plain(value) for name, value in row.items()} for row in rows])
    if format is ExportFormat.JSON:
        return json_text(rows, indent=2) + "\n"
    return "".join(json_text(row) + "\n" for row in rows)


def _plain(value: Any) -> Any:
    return json_text(value) if isinstance(value, list | dict) else value


def _write_parquet(rows: list[dict[str, Any]], path: Path, types: dict[str, str]) -> None:
    import pyarrow
    import pyarrow.parquet

    from vivace.errors import UsageError

    schema = pyarrow.schema([(name, pyarrow.type_for_alias(kind)) for name, kind in types.items()])
    plain = [without_keys_inside({name: _plain(value) for name, value in row.items()}) for row in rows]
    try:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(plain, schema=schema), path)
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())
        raise UsageError(f"'{path}' cannot be written ({reason}).") from error
