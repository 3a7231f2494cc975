"""The programs `vivace` and `submit-model`: verbs put together, errors turned into sentences and exit codes."""

from __future__ import annotations

import atexit
import gc
import io
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from copy import copy
from functools import cache
from typing import Annotated, Any

import typer

from vivace import __version__
from vivace.cli.common import say
from vivace.cli.results import (
    breakdown,
    compare,
    export,
    gaps,
    import_,
    label,
    leaderboard,
    publish,
    regress,
    reproduce,
    retract,
    visibility,
)
from vivace.cli.running import cancel, demo, logs, plan, run, status, submit, worker
from vivace.cli.subjects import data, judge, methods, models, tasks
from vivace.cli.upkeep import api, db, dispatch, doctor, serve, token
from vivace.cli.verb import Verb
from vivace.errors import UsageError, VivaceError
from vivace.output.printable import printable
from vivace.output.secrets import masked, masked_output

CONTEXT = {"auto_envvar_prefix": "VIVACE", "help_option_names": ["-h", "--help"]}

app = typer.Typer(
    help="Evaluate spoken-dialogue models and inference methods, and browse the results.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # boxes would break an error's sentence into pieces that nobody can search for
    context_settings=CONTEXT,
)


VERBS: dict[str, Callable[..., Any]] = {
    "run": run.run,
    "demo": demo.demo,
    "submit": submit.submit,
    "worker": worker.worker,
    "dispatch": dispatch.dispatch,
    "status": status.status,
    "logs": logs.logs,
    "cancel": cancel.cancel,
    "retract": retract.retract,
    "visibility": visibility.visibility,
    "label": label.label,
    "leaderboard": leaderboard.leaderboard,
    "compare": compare.compare,
    "breakdown": breakdown.breakdown,
    "gaps": gaps.gaps,
    "plan": plan.plan,
    "publish": publish.publish,
    "import": import_.import_,
    "export": export.export,
    "reproduce": reproduce.reproduce,
    "serve": serve.serve,
    "api": api.api,
    "doctor": doctor.doctor,
}
"""A new verb is one file and one line here."""

for name, function in VERBS.items():
    app.command(name)(function)
app.add_typer(data.app, name="data")
app.add_typer(db.app, name="db")
app.add_typer(judge.app, name="judge")
app.add_typer(methods.app, name="methods")
app.add_typer(models.app, name="models")
app.add_typer(regress.app, name="regress")
app.add_typer(tasks.app, name="tasks")
app.add_typer(token.app, name="token")

for group in (app, data.app, db.app, judge.app, methods.app, models.app, regress.app, tasks.app, token.app):
    for each in group.registered_commands:
        each.cls = getattr(each.callback, "verb", Verb)  # a verb that takes a spec's keys brings its own


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vivace {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool,
        # No VIVACE_VERSION: many an environment has a variable of that name, and it is no flag.
        typer.Option(
            "--version", callback=_show_version, is_eager=True, allow_from_autoenv=False, help="Show the version."
        ),
    ] = False,
) -> None:
    """Options before any verb."""
    os.environ["VIVACE_DEBUG"] = "1" if debug else "0"


def main() -> None:
    """The program `vivace`."""
    _run(_asked_for(sys.argv[1:]))


def _asked_for(words: Sequence[str]) -> typer.Typer:
    """The program with the verb alone that it is asked for, or the group of verbs: to put all together takes longer
    than many of them run. All of it where no verb comes first.
    """
    asked = next((word for word in words if word != "--debug"), None)
    part = copy(app)
    part.registered_commands = [verb for verb in app.registered_commands if verb.name == asked]
    part.registered_groups = [group for group in app.registered_groups if group.name == asked]
    return part if part.registered_commands or part.registered_groups else app


def submit_model() -> None:
    """The program `submit-model`: the verb `vivace submit` under a name of its own."""
    program = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None, context_settings=CONTEXT)
    program.command("submit-model", cls=Verb)(submit.submit)
    _run(program)


@cache
def _collect_less() -> None:
    """Look for garbage in cycles a quarter as often, and never while the process ends: a tenth of a run's time."""
    gc.set_threshold(3_000, 10, 10)
    atexit.register(_leave_garbage)


def _leave_garbage() -> None:
    if "triton" not in sys.modules:  # its binding prints a page of complaints about what is not collected
        gc.freeze()


def _run(program: typer.Typer) -> None:
    _collect_less()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Data are UTF-8 wherever they go; a bare locale (cron, a container) would refuse a dash.
            stream.reconfigure(encoding="utf-8", errors="replace")
    try:
        with masked_output():
            _run_masked(program)
    except BrokenPipeError:
        # Whoever read our output has gone; there is nobody left to tell.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123
        sys.exit(1)


def _run_masked(program: typer.Typer) -> None:
    try:
        _check_text()
        program()
    except VivaceError as error:
        _fail(error, str(error), error.exit_code)
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(130)
    except BrokenPipeError:
        raise
    except OSError as error:
        _fail(error, f"Something could not be read or written ({error}); see to that, and run the command again.", 1)
    except Exception as error:
        found = " ".join(masked(f"{type(error).__name__}: {error}").split())
        _fail(error, f"Vivace itself is at fault here ({found[:500]}); run it again as `vivace --debug …` for the "
              "details.", 1)  # fmt: skip


def _check_text() -> None:
    """See that arguments and settings are text.

    Raises:
        UsageError: one holds bytes that are not UTF-8, which could be neither stored nor printed, or characters that
            would command a terminal.
    """
    given = {f"The argument {number}": text for number, text in enumerate(sys.argv[1:], start=1)}
    given |= {f"The variable {name}": text for name, text in os.environ.items() if name.startswith("VIVACE_")}
    for what, text in given.items():
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise UsageError(f"{what} is not UTF-8 ({text!a}); write it in UTF-8, and rename files so.")
        if printable(text) != text.replace("\r\n", "\n"):
            raise UsageError(f"{what} holds a control character ({text!a}); leave it out.")


def _fail(error: Exception, message: str, code: int) -> None:
    if os.environ.get("VIVACE_DEBUG", "").lower() in ("1", "true", "yes", "on"):
        say("".join(traceback.format_exception(error)).rstrip("\n"))
    say(f"Error: {message}")
    sys.exit(code)


if __name__ == "__main__":
    main()
