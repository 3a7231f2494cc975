"""The options of verbs that take a spec's keys: made from the spec's fields when such a verb is called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from enum import Enum, StrEnum
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_args, get_origin, get_type_hints

import typer

from vivace.cli.verb import Verb

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from vivace.spec import Flag, RunSpec

Options = list[inspect.Parameter]
MakeOptions = Callable[[Sequence[str]], tuple[Options, str]]
"""From a verb's arguments, its options and what its help says of them."""


class SpecVerb(Verb):
    """A verb whose options are made when it is called: a list of verbs need not load what a spec is."""

    function: ClassVar[Callable[..., Any]]
    make_options: ClassVar[MakeOptions]

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Read the arguments with all the options."""
        options, note = type(self).make_options(args)
        program = typer.Typer(rich_markup_mode=None, add_completion=False)
        written_help = f"{self.help}\n\n{note}" if note else self.help
        program.command(self.name, cls=Verb, help=written_help)(_with_options(type(self).function, options))
        return typer.main.get_command(program).make_context(info_name, args, parent, **extra)


def takes_run_spec(function: Callable[..., Any]) -> Callable[..., Any]:
    """A verb with the options of a run's spec, those of the track that its arguments name before all.

    Args:
        function: the verb; `flags` gets what was given of a spec's keys.
    """
    return _verb(function, _run_options)


def takes_keys(
    names: Callable[[], Sequence[str]], *, note: str = "", defaults: Mapping[str, str] | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A verb that takes some of the keys of a dialogue spec.

    Args:
        names: gives those of the spec's fields.
        note: put behind each option's help.
        defaults: by field, what is shown for a default where the verb has another than the spec.
    """

    def options(_arguments: Sequence[str]) -> tuple[Options, str]:
        from vivace.spec import DialogueSpec

        shown = defaults or {}
        return [_option(name, DialogueSpec, note=note, default=shown.get(name, "")) for name in names()], ""

    return lambda function: _verb(function, options)


def _run_options(arguments: Sequence[str]) -> tuple[Options, str]:
    """The options of the track that is named; unseen, those of the others, for a spec says what it does not take."""
    from vivace.spec import SPECS, RunSpec, flags_of

    track = next((each for each in arguments if each in SPECS), None)
    shown: type[RunSpec] = RunSpec if track is None else SPECS[track]
    made = {name: _option(name, shown) for name in flags_of(shown)}
    for spec in SPECS.values():
        for name in flags_of(spec):
            # A variable of the environment sets an option where there is one, and is no mistake elsewhere.
            made.setdefault(name, _option(name, spec, hidden=True, allow_from_autoenv=track is None))
    *most, last = SPECS
    note = f"The tracks are {', '.join(most)} and {last}; `vivace run TRACK --help` shows the options of one."
    return list(made.values()), note if track is None else ""


def _verb(function: Callable[..., Any], make_options: MakeOptions) -> Callable[..., Any]:
    """A function as Typer takes it, without options that are not known yet."""
    shown = _with_options(function, [])
    attributes = {"function": staticmethod(function), "make_options": staticmethod(make_options)}
    shown.verb = type("Made", (SpecVerb,), attributes)  # type: ignore[attr-defined]
    return shown


def _with_options(function: Callable[..., Any], options: Options) -> Callable[..., Any]:
    """A function that has these options too, after its positional parameters, and hands them on as `flags`."""

    def called(**given: Any) -> Any:
        flags = {name.replace("_", "-"): _plain(given.pop(name)) for name in names}
        return function(**given, flags=flags)

    names = [option.name for option in options]
    hints = get_type_hints(function, include_extras=True)
    own = [
        parameter.replace(annotation=hints[parameter.name])
        for parameter in inspect.signature(function).parameters.values()
        if parameter.name != "flags"
    ]
    first = [parameter for parameter in own if parameter.kind is not inspect.Parameter.KEYWORD_ONLY]
    parameters = [*first, *options, *own[len(first) :]]
    ordered = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    called.__signature__ = inspect.Signature(ordered)  # type: ignore[attr-defined]
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in ordered}
    called.__doc__ = function.__doc__
    called.__name__ = function.__name__
    return called


def _option(name: str, spec: type[RunSpec], note: str = "", default: str = "", **more: Any) -> inspect.Parameter:
    from vivace.spec import flags_of

    field, flag = spec.model_fields[name], flags_of(spec)[name]
    key = name.replace("_", "-")
    kind = _kind(field, flag, name)
    written = f"--{key}/--no-{key}" if kind is bool else f"--{key}"
    default = default or flag.default or _default(field.get_default(), key)
    option = typer.Option(written, help=_noted(flag.help, note), show_default=default or True, **more)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )


def _noted(text: str, note: str) -> str:
    return f"{text.removesuffix('.')}, {note}." if note else text


def _kind(field: FieldInfo, flag: Flag, name: str) -> Any:
    """What a value on the command line is: the field's own type where that can be written there."""
    if flag.kind is not None:
        return flag.kind
    annotation = field.annotation
    kinds = [kind for kind in get_args(annotation) if kind is not NoneType]
    if get_origin(annotation) is not Literal and NoneType in get_args(annotation):
        (annotation,) = kinds
    if get_origin(annotation) is Literal:
        return StrEnum(name, {choice: choice for choice in get_args(annotation)})
    return list[str] if get_origin(annotation) in (list, dict) else annotation


def _default(value: Any, key: str) -> str:
    if isinstance(value, bool):
        return key if value else f"no-{key}"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if isinstance(value, int | str) else ""


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return value.value if isinstance(value, Enum) else value
