"""`vivace run`: execute a run here, with progress, and print its scores."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from vivace.cli.common import DatabaseOption, Format, FormatOption, HomeOption, settings_of


class OutputChoice(StrEnum):
    """What the model answers with."""

    TEXT = "text"
    AUDIO = "audio"


class AudioChoice(StrEnum):
    """The form in which user turns are sent."""

    RATE_16K = "16k"
    ORIGINAL = "original"
    TRANSCRIPT = "transcript"


def run(
    track: Annotated[
        str | None, typer.Argument(help="audio-multichallenge, speculation, prefill or sparsity.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="A YAML spec or suite; flags override its keys.")
    ] = None,
    data: Annotated[str | None, typer.Option("--data", help="demo, a file or folder, or hub-id@revision.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="The system under test, adapter:name.")] = None,
    judge: Annotated[
        str | None,
        typer.Option("--judge", help="adapter:name, or checks.", show_default="litellm:openai/o4-mini"),
    ] = None,
    judge_prompt: Annotated[
        Path | None,
        typer.Option("--judge-prompt", help="A prompt file in place of the dataset's own or Vivace's."),
    ] = None,
    api_base: Annotated[
        str | None, typer.Option("--api-base", help="Address of an OpenAI-compatible server.")
    ] = None,
    judge_api_base: Annotated[str | None, typer.Option("--judge-api-base", help="The same, for the judge.")] = None,
    model_arg: Annotated[
        list[str] | None, typer.Option("--model-arg", help="A generation parameter, k=v. Repeatable.")
    ] = None,
    judge_arg: Annotated[list[str] | None, typer.Option("--judge-arg", help="The same, for the judge.")] = None,
    method: Annotated[
        str | None,
        typer.Option(
            "--method", help="What a local: model decodes with, name(setting=value):RECIPE.", show_default="plainly"
        ),
    ] = None,
    card: Annotated[Path | None, typer.Option("--card", help="A YAML file that describes the model.")] = None,
    audio: Annotated[
        AudioChoice | None, typer.Option("--audio", help="What is sent of a user turn.", show_default="16k")
    ] = None,
    output: Annotated[
        OutputChoice | None,
        typer.Option("--output", help="What the model answers with.", show_default="the adapter's own way"),
    ] = None,
    voice: Annotated[str | None, typer.Option("--voice", help="The voice that speaks the answers.")] = None,
    transcriber: Annotated[
        str | None,
        typer.Option(
            "--transcriber", help="Writes down spoken answers, adapter:name.", show_default="the API's own transcript"
        ),
    ] = None,
    hear: Annotated[
        bool | None,
        typer.Option("--hear/--no-hear", help="Check first that audio is heard.", show_default="hear"),
    ] = None,
    digits: Annotated[
        Path | None, typer.Option("--digits", help="Spoken digits for that check: a folder of DIGIT_SPEAKER_N.wav.")
    ] = None,
    repeats: Annotated[
        int | None,
        typer.Option(
            "--repeats",
            help="Replies to each conversation, or trials of each arm on each prompt.",
            show_default="1, or 3",
        ),
    ] = None,
    votes: Annotated[
        int | None, typer.Option("--votes", help="Verdicts of each judge on each criterion.", show_default="1")
    ] = None,
    items: Annotated[str | None, typer.Option("--items", help="Conversations by id: ID,ID,…")] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", help="Only the first N conversations, or samples of each task.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", help="Calls at a time.", show_default="8")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option("--timeout", help="Seconds for one try of a call.", show_default="120")
    ] = None,
    retries: Annotated[
        int | None, typer.Option("--retries", help="Further tries of a failed call.", show_default="3")
    ] = None,
    requests_per_minute: Annotated[
        float | None, typer.Option("--requests-per-minute", help="At most so many calls to the model.")
    ] = None,
    tokens_per_minute: Annotated[
        float | None, typer.Option("--tokens-per-minute", help="At most so many tokens to and from the model.")
    ] = None,
    judge_requests_per_minute: Annotated[
        float | None, typer.Option("--judge-requests-per-minute", help="The same, for the judge.")
    ] = None,
    judge_tokens_per_minute: Annotated[
        float | None, typer.Option("--judge-tokens-per-minute", help="The same, for the judge.")
    ] = None,
    price: Annotated[
        str | None,
        typer.Option(
            "--price", help="US dollars for a million of the model's tokens, IN,OUT.", show_default="litellm's list"
        ),
    ] = None,
    judge_price: Annotated[str | None, typer.Option("--judge-price", help="The same, for the judge.")] = None,
    max_cost: Annotated[
        float | None,
        typer.Option(
            "--max-cost", help="Stop, to be resumed, at so many US dollars in all; calls in flight still count."
        ),
    ] = None,
    max_errors: Annotated[
        int | None,
        typer.Option(
            "--max-errors", help="Stop, to be resumed, after so many failed calls; those in flight may add some."
        ),
    ] = None,
    cache: Annotated[
        bool | None,
        typer.Option("--cache/--no-cache", help="Take answers given earlier to the same.", show_default="no-cache"),
    ] = None,
    arms: Annotated[
        list[str] | None,
        typer.Option("--arms", help="Efficiency tracks: methods, name(setting=value):FITTED, … Repeatable."),
    ] = None,
    tasks: Annotated[
        list[str] | None, typer.Option("--tasks", help="The same: what is asked, name(setting=value), … Repeatable.")
    ] = None,
    sweep: Annotated[
        list[str] | None, typer.Option("--sweep", help="The same: a setting's values, budget=8,16,32. Repeatable.")
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline",
            help="The same: the arm that others are compared with.",
            show_default="the fastest plain one",
        ),
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(
            "--calibration",
            help="The same: a text file, or generated tasks, to fit arms on that name no recipe.",
            show_default="the run's own generated tasks",
        ),
    ] = None,
    layers: Annotated[int | None, typer.Option("--layers", help="The same: fewer layers of a random: model.")] = None,
    most_tokens: Annotated[
        int | None, typer.Option("--most-tokens", help="The same: the longest answer.", show_default="the task's own")
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="The same: auto, cpu or cuda.", show_default="auto")
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option("--dtype", help="The same: auto, float32, bfloat16 or float16.", show_default="auto"),
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", help="The same: of the processor.", show_default="one a core; zoo: one")
    ] = None,
    memory: Annotated[
        bool | None,
        typer.Option("--memory/--no-memory", help="The same: take peak memory.", show_default="but for the zoo"),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="The same: of samples and random weights.", show_default="1")
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option("--margin", help="The same: the loss of quality that counts as none.", show_default="0.05"),
    ] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="Any key of the spec, a.b=c. Repeatable.")
    ] = None,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Try again what is recorded as unscored.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="A new run, though this one is recorded.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything and say what would be done.")] = False,
    format: FormatOption = Format.TABLE,
    home: HomeOption = None,
    database: DatabaseOption = None,
) -> None:
    """Take a system through a track. The same command again resumes, or finds it done."""
    from vivace.cli import execution

    flags: dict[str, Any] = {
        "track": track,
        "data": data,
        "model": model,
        "judge": judge,
        "judge-prompt": judge_prompt and str(judge_prompt),
        "api-base": api_base,
        "judge-api-base": judge_api_base,
        "card": card and str(card),
        "method": method,
        "audio": audio and audio.value,
        "output": output and output.value,
        "voice": voice,
        "transcriber": transcriber,
        "hear": hear,
        "digits": digits and str(digits),
        "repeats": repeats,
        "votes": votes,
        "items": items,
        "limit": limit,
        "concurrency": concurrency,
        "timeout": timeout,
        "retries": retries,
        "requests-per-minute": requests_per_minute,
        "tokens-per-minute": tokens_per_minute,
        "judge-requests-per-minute": judge_requests_per_minute,
        "judge-tokens-per-minute": judge_tokens_per_minute,
        "price": price,
        "judge-price": judge_price,
        "max-cost": max_cost,
        "max-errors": max_errors,
        "cache": cache,
        "arms": arms,
        "tasks": tasks,
        "sweep": sweep,
        "baseline": baseline,
        "calibration": calibration,
        "layers": layers,
        "most-tokens": most_tokens,
        "device": device,
        "dtype": dtype,
        "threads": threads,
        "memory": memory,
        "seed": seed,
        "margin": margin,
    }
    specs = execution.specs_from(config, flags, model_arg, judge_arg, assignments)
    settings = settings_of(home, database)
    if dry_run:
        execution.show_plans(specs, settings, format)
        return
    code = 0
    for spec in specs:
        outcome = execution.run_here(spec, settings, retry_errors=retry_errors, force=force)
        execution.print_result(outcome, settings, format)
        execution.say_where(outcome, settings)
        code = code or outcome.exit_code
        if outcome.exit_code == execution.EXIT_CODES["interrupted"]:
            break
    raise typer.Exit(code)
