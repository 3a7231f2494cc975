"""How methods, arms, tasks and rules are written, `name(setting=value):FOLDER+…`: read here, and written back.

An arm is one part or several with `+` between them; a part is a name, settings in brackets, and after a colon the
folder (or another name) of what was fitted for it. `+`, `:`, brackets and commas inside of values and folders count
as what they are:

- inside of brackets, only commas and brackets of the same depth part settings: `moe-spec(rule=top(k=3,least=1))`;
- a folder ends at a `+` only where a name follows it, up to `(`, `:`, another `+` or the end: not in
  `/data/c++/fits`;
- what has such a form and is meant as it stands is put into quotation marks, one of them inside written twice:
  `teal:'/data/a+b'`, `gsm8k(path="a,b")`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from vivace_methods.suggestions import did_you_mean

LARGEST = 2**31 - 1
"""Of an integer, whatever its sign: what counts tokens, layers or draws is far from it."""


class SpellingError(ValueError):
    """Something is not written as methods, arms and tasks are, or sets what cannot be set so."""


@dataclass(frozen=True)
class Part:
    """One method, task or rule, as it was written.

    Attributes:
        name: of the method, task or rule.
        settings: setting → its value as text, in the order in which they were written.
        folder: what stands behind the colon: a folder, or a name like `zoo:NAME`; None where nothing does.
    """

    name: str
    settings: Mapping[str, str] = field(default_factory=dict)
    folder: str | None = None


_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_NEXT = re.compile(rf"\+\s*{_NAME.pattern}\s*(?=[(:+]|$)")
"""Where a folder ends, and another part begins."""
_QUOTED = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"")


def parse(text: str) -> tuple[Part, ...]:
    """The parts of what a person wrote; `write` is its inverse.

    Raises:
        SpellingError: it is not in that form, or sets one thing twice.
    """
    parts: list[Part] = []
    rest = text.strip()
    while True:
        name = _NAME.match(rest)
        if name is None:
            raise _malformed(text, parts)
        settings: dict[str, str] = {}
        folder = None
        rest = rest[name.end() :].lstrip()
        if rest.startswith("("):
            end = next((place for place, character, depth in _bare(rest) if character == ")" and depth == 0), None)
            if end is None:
                raise SpellingError(f"'{text}' {_FORM}: it opens a bracket and does not close it.")
            settings, rest = _settings(rest[1:end], text), rest[end + 1 :].lstrip()
        if rest.startswith(":"):
            folder, rest = _folder(rest[1:].lstrip())
            if not folder:
                raise SpellingError(f"'{text}' has nothing behind its colon: it is followed by :FOLDER or :zoo:NAME.")
        parts.append(Part(name[0], settings, folder))
        if not rest:
            return tuple(parts)
        if not rest.startswith("+"):
            raise _malformed(text, parts)
        rest = rest[1:].lstrip()


def parse_one(text: str) -> Part:
    """A single name with its settings: a method alone, a task, a rule.

    Raises:
        SpellingError: as `parse` says; or there are several parts, or a folder.
    """
    first, *others = parse(text)
    if others or first.folder is not None:
        raise SpellingError(f"'{text}' {_FORM} with nothing after it.")
    return first


def write(parts: Iterable[Part]) -> str:
    """Parts as `parse` reads them, with quotation marks only where it needs them."""
    return "+".join(map(_written, parts))


def split_list(text: str) -> list[str]:
    """What stands on one line as a list: cut at the commas outside of brackets and quotation marks; none is empty."""
    return list(filter(None, _cut(text)))


def parse_sweep(text: str) -> tuple[str, list[str]]:
    """A setting and the values that it takes in turn, from `budget=8,16,32`.

    Raises:
        SpellingError: it is not in that form.
    """
    setting, equals, listed = text.partition("=")
    values = [_unquoted(value) for value in split_list(listed)]
    if not equals or not setting.strip() or not values:
        raise SpellingError(f"'{text}' is not written as setting=value,value")
    return setting.strip(), values


def setting_types(kind: type) -> dict[str, Any]:
    """The settings of a method or task with their types, in the order of its fields."""
    hints = get_type_hints(kind)
    return {each.name: hints[each.name] for each in fields(kind)}


def read_settings(kind: type, part: Part, what: str) -> dict[str, Any]:
    """The values that the texts of a part stand for.

    Args:
        kind: the dataclass whose fields are the settings.
        part: as it was written.
        what: what `kind` is one of, in a sentence: `method`, `task`.

    Raises:
        SpellingError: as `check_settings` says.
    """
    types = setting_types(kind)
    values = {setting: _read(text, types.get(setting)) for setting, text in part.settings.items()}
    check_settings(kind, values, what, part.name)
    return values


def check_settings(kind: type, values: Mapping[str, Any], what: str, name: str) -> None:
    """See that settings are there, and can take these values.

    Raises:
        SpellingError: there is no such setting, it cannot take its value, or one without a default is not given.
    """
    types = setting_types(kind)
    for setting, value in values.items():
        if setting not in types:
            known = f"it has {', '.join(types)}" if types else "it has none"
            raise SpellingError(
                f"The {what} {name} has no setting '{setting}'{did_you_mean(setting, types)}; {known}."
            )
        if not _fits(value, types[setting]):
            meant = did_you_mean(value, _choices(types[setting])) if isinstance(value, str) else ""
            raise SpellingError(
                f"The setting {setting} of {name} must be {described(types[setting])}, not {value!r}{meant}."
            )
        if type(value) is int and abs(value) > LARGEST:
            raise SpellingError(f"The setting {setting} of {name} lies within ±{LARGEST:,}, and not at {value:,}.")
    for each in fields(kind):
        if each.name not in values and _is_required(each):
            raise SpellingError(f"The {what} {name} needs its setting {each.name}: write {name}({each.name}=…).")


def described(kind: Any) -> str:
    """A setting's type in words: `one of sdpa, eager`, `an integer`."""
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    if get_args(kind):
        return " or ".join(described(part) for part in get_args(kind))
    return {int: "an integer", float: "a number", str: "text", bool: "true or false", type(None): "none"}[kind]


_FORM = "is not written as name(setting=value,setting=value)"


def _malformed(text: str, parts: list[Part]) -> SpellingError:
    hint = ""
    if any(part.folder is not None for part in parts):
        hint = f"; a folder with + in its name is put into quotation marks, {parts[0].name}:'FOLDER'"
    return SpellingError(f"'{text}' {_FORM} or with :FOLDER after it, and + between methods{hint}.")


def _bare(text: str) -> Iterator[tuple[int, str, int]]:
    """Place, character and depth of brackets of all that stands outside of quotation marks; of a bracket, the depth
    outside of it."""
    place, depth, before = 0, 0, ","
    while place < len(text):
        character = text[place]
        if before in "(=,:" and (quoted := _QUOTED.match(text, place)):
            place, before = quoted.end(), character
            continue
        depth = max(0, depth - (character == ")"))
        yield place, character, depth
        depth += character == "("
        before = before if character.isspace() else character
        place += 1


def _cut(text: str) -> Iterator[str]:
    start = 0
    for place, character, depth in _bare(text):
        if character == "," and depth == 0:
            yield text[start:place].strip()
            start = place + 1
    yield text[start:].strip()


def _settings(inside: str, text: str) -> dict[str, str]:
    settings: dict[str, str] = {}
    for piece in split_list(inside):
        setting, equals, value = (each.strip() for each in piece.partition("="))
        if not equals or not setting or not value:
            raise SpellingError(f"'{piece}' in '{text}' is not written as setting=value.")
        if setting in settings:
            raise SpellingError(f"'{text}' sets {setting} twice.")
        settings[setting] = _unquoted(value)
    return settings


def _folder(text: str) -> tuple[str, str]:
    """A folder at the beginning of a text, and the rest of it."""
    if quoted := _QUOTED.match(text):
        rest = text[quoted.end() :].lstrip()
        if rest == "" or rest.startswith("+"):
            return _unquoted(quoted[0]), rest
    following = _NEXT.search(text)
    end = following.start() if following else len(text)
    return text[:end].rstrip(), text[end:]


def _unquoted(value: str) -> str:
    if _QUOTED.fullmatch(value) is None:
        return value
    return value[1:-1].replace(2 * value[0], value[0])


def _written(part: Part) -> str:
    told = [f"{setting}={_quoted(value, 'x(x={})')}" for setting, value in part.settings.items()]
    folder = "" if part.folder is None else f":{_quoted(part.folder, 'x:{}')}"
    return part.name + (f"({','.join(told)})" if told else "") + folder


def _quoted(value: str, form: str) -> str:
    """A value as it stands, or in quotation marks where it would not be read as itself among others."""
    text = form.format(value)
    if "'" not in value and '"' not in value and split_list(f"{text},x") == [text, "x"]:
        try:
            part, *others = parse(text)
        except SpellingError:
            pass
        else:
            if not others and value in (part.folder, part.settings.get("x")):
                return value
    return "'" + value.replace("'", "''") + "'"


def _is_required(setting: Field[Any]) -> bool:
    return setting.default is MISSING and setting.default_factory is MISSING


def _choices(kind: Any) -> list[str]:
    return [str(choice) for choice in get_args(kind)] if get_origin(kind) is Literal else []


def _fits(value: Any, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_args(kind):
        return any(_fits(value, part) for part in get_args(kind))
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return type(value) is kind


def _read(text: str, kind: Any) -> Any:
    """The value that a text stands for, or the text itself where it stands for none."""
    if get_origin(kind) is Literal:
        return next((value for value in get_args(kind) if str(value) == text), text)
    for part in get_args(kind) or (kind,):
        if part is bool and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if part is type(None) and text.lower() == "none":
            return None
        if part in (int, float):
            try:
                return part(text)
            except ValueError:
                continue
    return text
