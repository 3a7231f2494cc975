"""`vivace data`: fetch or build a set of conversations, find its faults, count what it holds, voice and join it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vivace.cli.common import (
    DatabaseOption,
    Format,
    FormatOption,
    HomeOption,
    percent,
    print_json,
    print_rows,
    print_text,
    say,
    settings_of,
)
from vivace.cli.tables.printing import ShownColumns

if TYPE_CHECKING:
    from vivace.tracks.dialogue.data.conversations import Conversation, ConversationSet
    from vivace.tracks.dialogue.transcriber_errors import Said

app = typer.Typer(help="Conversations: fetch, build, check, count, voice, join.", no_args_is_help=True)

DataArgument = Annotated[str, typer.Argument(help="demo, a file or folder, or hub-id@revision.")]

WARNINGS_SHOWN = 10
"""Warnings of one kind that a table shows; the other formats have them all."""
PROGRESS_EVERY_S = 10.0

FINDING_COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "severity": lambda row: row["severity"],
    "conversation": lambda row: row["conversation"] or "–",
    "row": lambda row: "–" if row["row"] is None else str(row["row"]),
    "column": lambda row: row["column"] or "–",
    "what is wrong": lambda row: row["what"],
    "what to do": lambda row: row["what_to_do"],
}
FINDINGS = ShownColumns(FINDING_COLUMNS, prose=("what is wrong", "what to do"))

TEXT_DESCRIPTION: dict[str, Callable[[dict[str, Any]], str]] = {
    "axis": lambda row: row["axis"],
    "conversations": lambda row: f"{row['conversations']:,}",
    "criteria": lambda row: f"{row['criteria']:,}",
    "criteria/conversation": lambda row: _spread(row["criteria_per_conversation"]),
    "user turns": lambda row: f"{row['user_turns']:,}",
    "user turns/conversation": lambda row: f"{row['user_turns_per_conversation']['mean']:.2f}",
    "conversations by user turns": lambda row: _counts(row["conversations_by_user_turns"]),
    "user words/conversation": lambda row: f"{row['user_words_per_conversation']['mean']:.0f}",
    "assistant words/conversation": lambda row: f"{row['assistant_words_per_conversation']['mean']:.0f}",
}

AUDIO_DESCRIPTION: dict[str, Callable[[dict[str, Any]], str]] = {
    "axis": lambda row: row["axis"],
    "minutes": lambda row: f"{row['audio']['minutes']:.1f}",
    "seconds/turn": lambda row: _spread(row["audio"]["turn_s"], ".1f", ".1f"),
    "seconds/conversation": lambda row: _spread(row["audio"]["conversation_s"], ".1f", ".1f"),
    "sample rates, Hz": lambda row: _counts(row["audio"]["sample_rates"]),
    "containers": lambda row: _counts(row["audio"]["containers"]),
    "speakers": lambda row: "unknown" if row["audio"]["speakers"] is None else str(row["audio"]["speakers"]),
}


@app.command()
def fetch(
    dataset: Annotated[str, typer.Argument(help="HUB-ID or HUB-ID@REVISION: a branch, tag or commit.")],
) -> None:
    """Download a dataset of the hub into its local cache, and print HUB-ID@COMMIT, to be given as --data.

    Runs with that name need no network afterwards.
    """
    from vivace.errors import UsageError

    if dataset == "demo" or Path(dataset).exists() or "/" not in dataset:
        raise UsageError(f"'{dataset}' is not the name of a dataset on the hub; write it as OWNER/NAME@REVISION.")
    from vivace.tracks.dialogue.data.readers import open_conversations

    fetched = open_conversations(dataset)
    print_text(f"{fetched.name}@{fetched.revision}")
    say(
        f"{len(fetched.conversations):,} conversations, {'with' if fetched.has_audio else 'without'} audio, "
        f"{'with' if fetched.judge_prompt else 'without'} a judge prompt of their own"
    )


@app.command()
def hide(
    data: Annotated[str, typer.Argument(help="What --data takes, or the name of a recorded set.")],
    home: HomeOption = None,
    database: DatabaseOption = None,
) -> None:
    """Hide a set's items: what is said, asked and answered there is the operator's alone; its scores are shown.

    Later revisions of a set of that name are hidden, too.
    """
    say(f"The items of {_withhold(data, True, home, database)} are hidden; scores are shown.")


@app.command()
def reveal(
    data: Annotated[str, typer.Argument(help="What --data takes, or the name of a recorded set.")],
    home: HomeOption = None,
    database: DatabaseOption = None,
) -> None:
    """Show the items of a set that was hidden."""
    say(f"The items of {_withhold(data, False, home, database)} are shown to whoever sees its runs.")


def _withhold(data: str, hidden: bool, home: Path | None, database: str | None) -> str:
    """Hide or show the items of the sets of a name, else of the one that is read; the name that is theirs."""
    from vivace.engine.access.withholding import hide_items, sets_named
    from vivace.store.migrate import open_for_writing
    from vivace.tracks.dialogue.data.readers import open_conversations
    from vivace.tracks.dialogue.ingest import store_conversations

    settings = settings_of(home, database)
    opened = open_for_writing(settings)
    name, sets = data, sets_named(opened, data)
    if not sets:
        conversations = open_conversations(data)
        with opened.write() as session:
            name, sets = conversations.name, [store_conversations(session, conversations, [], {}).id]
    hide_items(opened, sets, hidden)
    opened.close()
    return f"'{name}'"


@app.command()
def validate(data: DataArgument, format: FormatOption = Format.TABLE) -> None:
    """Read a whole set, decode every recording, and explain every fault; exit code 2 if there is one."""
    from vivace.tracks.dialogue.data.validation import Severity
    from vivace.tracks.dialogue.data.validation import validate as find

    with _progress("rows checked") as progress:
        found = find(data, progress)
    rows = [finding.as_row() for finding in found.findings]
    faults, warnings = found.count(Severity.FAULT), found.count(Severity.WARNING)
    counts = {key: value for key, value in vars(found).items() if key != "findings"}
    if format is Format.JSON:
        print_json({**counts, "faults": faults, "warnings": warnings, "findings": rows})
    elif format is Format.TABLE:
        _print_shortened(rows)
    elif rows:
        print_rows(rows, format, FINDINGS)
    say(
        f"{found.conversations:,} conversations, {found.criteria:,} criteria, {found.user_turns:,} user turns, "
        f"{found.recordings:,} recordings ({found.audio_s / 60:.1f} minutes): "
        f"{faults:,} faults, {warnings:,} warnings"
    )
    raise typer.Exit(2 if faults else 0)


@app.command()
def describe(data: DataArgument, format: FormatOption = Format.TABLE) -> None:
    """Count what a set holds, axis by axis: conversations, criteria, turns, words, audio."""
    from vivace.tracks.dialogue.data.description import describe as count
    from vivace.tracks.dialogue.data.readers import open_conversations

    conversations = open_conversations(data)
    with _progress("conversations measured") as progress:
        rows = [asdict(description) for description in count(conversations, progress)]
    print_rows(rows, format, TEXT_DESCRIPTION)
    if rows[0]["audio"] is not None and format in (Format.TABLE, Format.MD):
        typer.echo()
        print_rows(rows, format, AUDIO_DESCRIPTION)


@app.command()
def build(
    folder: Annotated[Path, typer.Argument(help="A folder of recordings and a sheet of turns and rubrics.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The parquet file to write.", show_default="FOLDER.parquet")
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option("--sheet", help="A CSV, YAML or JSONL file.", show_default="the only one in the folder"),
    ] = None,
) -> None:
    """Make a set of your own: recordings and a CSV, YAML or JSONL of turns and rubrics, in the public columns."""
    from vivace.errors import UsageError
    from vivace.tracks.dialogue.data.set_from_recordings import BuildError
    from vivace.tracks.dialogue.data.set_from_recordings import build as make

    out = out or Path(f"{folder.resolve().name}.parquet")
    if out.suffix != ".parquet":
        raise UsageError(f"'{out}' is not named as a parquet file; let --out end in .parquet.")
    try:
        with _progress("recordings decoded") as progress:
            built = make(folder, out, sheet, progress)
    except BuildError as error:
        for fault in error.faults[1:]:
            say(f"{fault}.")
        raise
    typer.echo(str(out))
    for name in built.unused:
        say(f"no turn names the recording '{name}'")
    if (folder / "judge_prompt.txt").is_file() and out.resolve().parent != folder.resolve():
        say(f"the folder's own judge prompt is no part of the file; copy it to '{out.parent / 'judge_prompt.txt'}'")
    say(
        f"{built.conversations:,} conversations, {built.criteria:,} criteria, {built.recordings:,} recordings "
        f"({built.audio_s / 60:.1f} minutes); axes: {', '.join(built.axes)}"
    )


@app.command()
def voice(
    data: DataArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="The parquet file to write.")],
    voices: Annotated[
        list[str] | None,
        typer.Option(
            "--voice",
            help="espeak-ng:VOICE@WORDS-A-MINUTE or litellm:PROVIDER/MODEL:VOICE. Repeatable: each conversation "
            "gets one of them.",
            show_default="twelve voices of espeak-ng",
        ),
    ] = None,
    items: Annotated[str | None, typer.Option("--items", help="Conversations by id: ID,ID,…")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only the first N conversations.")] = None,
    concurrency: Annotated[
        int | None,
        typer.Option("--concurrency", min=1, help="Turns spoken at a time.", show_default="one per processor"),
    ] = None,
    api_base: Annotated[
        str | None, typer.Option("--api-base", help="Address of an OpenAI-compatible server, for litellm's voices.")
    ] = None,
    home: HomeOption = None,
) -> None:
    """Speak a set's user turns anew from their transcripts. The same command again goes on where it stopped."""
    from vivace.audio.voice import DEFAULT_VOICES, open_voice
    from vivace.tracks.dialogue.data.readers import open_conversations
    from vivace.tracks.dialogue.data.spoken_turns import voice_set

    _require_another_file(out, data)
    source = open_conversations(data)
    chosen = _chosen(source, items, limit)
    opened = [open_voice(name, api_base) for name in dict.fromkeys(voices or DEFAULT_VOICES)]
    with _progress("turns spoken") as progress:
        done = voice_set(
            source,
            chosen,
            opened,
            cache=settings_of(home, None).home / "voiced",
            out=out,
            concurrency=concurrency or os.cpu_count() or 1,
            progress=progress,
        )
    print_text(str(out))
    say(
        f"{done.conversations:,} conversations, {done.utterances:,} user turns ({done.spoken:,} spoken now), "
        f"{done.size / 1e6:.1f} MB"
    )
    _say_prompt_stays(source, data, out)


def _require_another_file(out: Path, data: str) -> None:
    """Refuse a file that is no parquet file by its name, or the set itself.

    Raises:
        UsageError: it is one of these.
    """
    from vivace.errors import UsageError

    if out.suffix != ".parquet":
        raise UsageError(f"'{out}' is not named as a parquet file; let --out end in .parquet.")
    if out.exists() and Path(data).exists() and out.samefile(data):
        raise UsageError(f"'{out}' is the set itself, whose recordings would be lost; give another file with --out.")


def _chosen(source: ConversationSet, items: str | None, limit: int | None) -> tuple[Conversation, ...]:
    """The conversations that --items and --limit name.

    Raises:
        UsageError: none.
    """
    from vivace.errors import UsageError

    wanted = None if items is None else [item.strip() for item in items.split(",") if item.strip()]
    chosen = source.chosen(wanted, limit)
    if not chosen:
        raise UsageError("No conversation is chosen; check --items.")
    return chosen


def _say_prompt_stays(source: ConversationSet, data: str, out: Path) -> None:
    if source.judge_prompt is not None and data != "demo":
        say(f"the set's own judge prompt is no part of the file; copy it to '{out.parent / 'judge_prompt.txt'}'")


@app.command()
def join(
    data: DataArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="The parquet file to write.")],
    turns: Annotated[int, typer.Option("--turns", min=2, max=8, help="User turns of each, where there are as many "
                                       "to stand before it.")] = 8,
    items: Annotated[str | None, typer.Option("--items", help="Conversations by id: ID,ID,…")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only the first N conversations.")] = None,
) -> None:  # fmt: skip
    """Put turns of other conversations before each: long histories, for methods that read a prompt in part."""
    from vivace.tracks.dialogue.data.joining import join_set
    from vivace.tracks.dialogue.data.readers import open_conversations

    _require_another_file(out, data)
    source = open_conversations(data)
    done = join_set(source, _chosen(source, items, limit), turns=turns, out=out)
    print_text(str(out))
    say(f"{done.conversations:,} conversations, {done.user_turns:,} user turns ({done.own:,} their own)")
    _say_prompt_stays(source, data, out)


RATES: dict[str, Callable[[dict[str, Any]], str]] = {
    "of": lambda row: row["slice"],
    "recordings": lambda row: f"{row['recordings']:,}",
    "WER %": lambda row: percent(row["word_error_rate"]),
    "errors": lambda row: f"{row['errors']:,}",
    "words": lambda row: f"{row['words']:,}",
    "exact": lambda row: f"{row['exact']:,}",
    "not heard": lambda row: f"{row['not_heard']:,}",
    "audio": lambda row: f"{row['audio_s']:.0f} s",
    "time": lambda row: f"{row['took_s']:.1f} s",
}
EACH: dict[str, Callable[[dict[str, Any]], str]] = {
    "recording": lambda row: row["recording"],
    "errors": lambda row: "–" if row["errors"] is None else f"{row['errors']} of {row['words']}",
    "said": lambda row: row["said"],
    "heard": lambda row: row["heard"] or f"(nothing: {row['detail']})",
}


@app.command()
def transcribe(
    data: Annotated[
        str, typer.Argument(help="A set (demo, file, folder, hub-id@revision), a recording, or a folder of digits.")
    ],
    transcriber: Annotated[str, typer.Option("--transcriber", "-t", help="Who is to hear, adapter:name.")],
    said: Annotated[str | None, typer.Option("--said", help="What is said in a recording.",
                                             show_default="the text file of its name beside it")] = None,
    each: Annotated[bool, typer.Option("--each", help="Show what was said and heard in each recording.")] = False,
    items: Annotated[str | None, typer.Option("--items", help="Conversations by id: ID,ID,…")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only the first N conversations.")] = None,
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds for one recording.")] = 120.0,
    format: FormatOption = Format.TABLE,
    home: HomeOption = None,
) -> None:  # fmt: skip
    """Say how well a transcriber hears: its word error rate on a set's user turns, a recording, or spoken digits.

    A folder of digits holds DIGIT_SPEAKER_NUMBER.wav; each speaker says six numbers of four digits, and each digit
    counts as a word. What was not heard at all counts as words left out.
    """
    import asyncio

    from vivace.errors import UsageError
    from vivace.models.adapters.transcription import open_transcriber
    from vivace.models.client.calls import ChatOptions
    from vivace.tracks.dialogue.data.readers import open_conversations
    from vivace.tracks.dialogue.transcriber_errors import rates, recordings_of, transcribed, turns_of

    alone = recordings_of(data, said)
    recordings: Iterable[Said] = alone or ()
    total = len(alone or ())
    if alone is None:
        source = open_conversations(data)
        if not source.has_audio:
            raise UsageError(f"The data '{source.name}' hold no recordings, so there is nothing to hear.")
        wanted = None if items is None else [item.strip() for item in items.split(",") if item.strip()]
        chosen = source.chosen(wanted, limit)
        total = sum(bool(exchange.user) for one in chosen for exchange in one.exchanges)
        recordings = turns_of(source, chosen)
    opened = open_transcriber(transcriber, ChatOptions(timeout_s=timeout), settings_of(home, None).home)
    with _progress("recordings heard") as progress:
        written = asyncio.run(transcribed(opened, recordings, lambda done: progress(done, total)))
    if each:
        print_rows([asdict(one) for one in written], format, ShownColumns(EACH, prose=("said", "heard")))
    else:
        print_rows([asdict(rate) for rate in rates(written)], format, RATES)


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int | None], None]]:
    """Talk about work under way: a bar on a terminal, a line now and then elsewhere."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
        return
    said = time.monotonic()

    def tell(done: int, total: int | None) -> None:
        nonlocal said
        if time.monotonic() - said >= PROGRESS_EVERY_S:
            said = time.monotonic()
            say(f"{done:,} {what}" if total is None else f"{done:,} of {total:,} {what}")

    yield tell


def _print_shortened(rows: list[dict[str, Any]]) -> None:
    """All faults, and the first warnings of each kind."""
    shown, left_out = [], dict[str, int]()
    met: dict[str, int] = {}
    for row in rows:
        met[row["kind"]] = met.get(row["kind"], 0) + 1
        if row["severity"] == "fault" or met[row["kind"]] <= WARNINGS_SHOWN:
            shown.append(row)
        else:
            left_out[row["kind"]] = left_out.get(row["kind"], 0) + 1
    if shown:
        print_rows(shown, Format.TABLE, FINDINGS)
    for kind, count in left_out.items():
        say(f"{count:,} more warnings of the kind “{kind}”; --format csv or json lists them")


def _spread(spread: dict[str, float], mean: str = ".2f", others: str = "g") -> str:
    """Mean (median, lowest–highest)."""
    middle, lowest, highest = (format(spread[key], others) for key in ("median", "lowest", "highest"))
    return f"{format(spread['mean'], mean)} ({middle}, {lowest}–{highest})"


def _counts(counts: dict[Any, int]) -> str:
    return ", ".join(f"{key}: {count:,}" for key, count in counts.items())
