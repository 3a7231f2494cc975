"""`vivace run`: execute a run here, with progress, and print its scores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vivace.cli.common import ArtifactsOption, DatabaseOption, Format, FormatOption, HomeOption, settings_of
from vivace.cli.running.spec_options import takes_run_spec


@takes_run_spec
def run(
    track: Annotated[str | None, typer.Argument(help="What is measured.")] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="A YAML spec or suite; flags override its keys.")
    ] = None,
    *,
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
    artifacts: ArtifactsOption = None,
    flags: dict[str, Any],
) -> None:
    """Take a system through a track. The same command again resumes, or finds it done."""
    from vivace.cli.running import execution

    specs = execution.specs_from(config, {"track": track, **flags}, assignments)
    settings = settings_of(home, database, artifacts)
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
