"""`vivace doctor`: what is there, what is missing, and what to do about it; and whether a model hears."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vivace.cli.common import (
    DatabaseOption,
    Format,
    FormatOption,
    HomeOption,
    print_json,
    print_rows,
    say,
    settings_of,
)
from vivace.cli.running.spec_options import takes_keys
from vivace.cli.tables.printing import ShownColumns

if TYPE_CHECKING:
    from vivace.models.hearing_check import Hearing
    from vivace.spec import DialogueSpec

COLUMNS = {
    "": lambda row: {"ok": "✓", "missing": "–", "broken": "✗"}[row["state"]],
    "what": lambda row: row["what"],
    "found": lambda row: row["found"],
}

PROBE_COLUMNS = {
    "heard": lambda row: "–" if not row["numbers"] else "✓" if set(row["heard"]) == set(row["asked"]) else "✗",
    "conversation": lambda row: row["kind"],
    "spoken": lambda row: " ".join(row["numbers"]) or "silence",
    "asked": lambda row: row["stage"],
    "asked for": lambda row: "all" if _is_asked_for_all(row) else f"turn {row['asked'][0]}",
    "answer": lambda row: " ".join((row["answer"] or f"({row['unscored']}: {row['detail']})").split())[:100],
    "audio s": lambda row: f"{row['audio_seconds']:.1f}",
    "audio tokens": lambda row: "–" if row["audio_tokens"] is None else str(row["audio_tokens"]),
}


def _is_asked_for_all(row: dict[str, Any]) -> bool:
    return row["stage"] != "ear" and len(row["asked"]) == max(1, len(row["numbers"]))


@takes_keys(lambda: ("api_base", "model_arg", "ear", "digits", "timeout"), note="for --hear")
def doctor(
    hear: Annotated[
        str | None,
        typer.Option("--hear", metavar="TARGET", help="Find out whether this model, adapter:name, hears recordings."),
    ] = None,
    turns: Annotated[int, typer.Option("--turns", min=1, max=8, help="User turns with a recording, for --hear.")] = 3,
    *,
    format: FormatOption = Format.TABLE,
    home: HomeOption = None,
    database: DatabaseOption = None,
    flags: dict[str, Any],
) -> None:
    """Check what is installed and set up. Exit code 1 if something is broken.

    Python, packages, database, audio, GPU, keys and folders. With --hear TARGET, whether a model hears: exit
    code 0 if it does, 1 if it does not, 3 if it could not be found out.
    """
    if hear is not None:
        from vivace.cli.running.execution import spec_from
        from vivace.spec import DialogueSpec

        spec = spec_from({"track": "audio-multichallenge", "data": "hearing check", "model": hear}, flags)
        assert isinstance(spec, DialogueSpec)
        found = _hearing(spec, turns, settings_of(home, database).home)
        if format is Format.JSON:
            print_json({"target": hear, **found.as_json()})
        else:
            print_rows(
                [vars(probe) for probe in found.probes], format, ShownColumns(PROBE_COLUMNS, prose=("answer",))
            )
        say(found.sentence())
        raise typer.Exit({"passed": 0, "failed": 1}.get(found.outcome, 3))

    from vivace.installation import diagnose

    rows: list[dict[str, Any]] = [vars(finding) for finding in diagnose(settings_of(home, database))]
    print_rows(rows, format, ShownColumns(COLUMNS, prose=("found",)))
    if any(row["state"] == "broken" for row in rows):
        raise typer.Exit(1)


def _hearing(spec: DialogueSpec, turns: int, home: Path) -> Hearing:
    """Put the hearing check to the model of a spec; nothing is stored."""
    import asyncio

    from vivace.audio.digits import VOICED, read_digits
    from vivace.errors import UsageError
    from vivace.models.base import HearsFirst, RecordedSystem
    from vivace.models.client.calls import ChatOptions
    from vivace.models.ear_check import AskedInStages, check_ear
    from vivace.models.hearing_check import asking, check_hearing
    from vivace.models.registry import open_system

    options = ChatOptions(spec.api_base, spec.timeout, spec.retries)
    system = open_system(spec.model, spec.model_arg, options, ear=spec.ear, home=home)
    if isinstance(system, RecordedSystem):
        raise UsageError(
            f"{system.identity.adapter}: holds recorded replies and hears nothing; name a model that can be asked."
        )
    spoken = read_digits(Path(spec.digits) if spec.digits else VOICED)

    async def check() -> Hearing:
        try:
            await system.preflight()
            if isinstance(system, HearsFirst):
                return await check_ear(AskedInStages(system), turns, spoken)
            return await check_hearing(asking(system), turns, spoken)
        finally:
            await system.close()

    return asyncio.run(check())
