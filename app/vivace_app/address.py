"""The page's state lives in its URL, so that a view can be shared and reloaded; nothing in it is trusted.

Widgets follow the URL: before each is drawn it is set to what the URL says, and a change by hand is written
back there. What the URL asks for and the database does not have becomes a sentence, never an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence

import streamlit as st

from vivace.output.printable import printable
from vivace_app.figures import literal

_MOST_DIGITS = 6
"""Of a number in the URL: no conversation has as many turns or seconds."""
_MOST_TEXT = 200
"""Characters of a text that is searched for."""
_ALL = ""
"""Of a choice that is none; no label is empty."""
_MOST_NAMED = 5
"""Unknown values of one parameter that are named; a link with hundreds must not push the page out of sight."""


class Address:
    """The query parameters of the page on show, read against what there is to choose from."""

    def __init__(self, parameters: MutableMapping[str, str] | None = None) -> None:
        self.parameters: MutableMapping[str, str] = st.query_params if parameters is None else parameters
        self.problems: list[str] = []
        """One Markdown sentence for each value that was refused, in the order of asking."""

    def choice(self, name: str, options: Iterable[str], what: str, fallback: str = "") -> str:
        """The option that the URL names under `name`; the fallback where it names none or an unknown one.

        A refused value leaves the URL, so that the sentence about it is shown once.

        Args:
            name: the query parameter.
            options: what may be chosen.
            what: what the parameter names, in words, for the sentence.
            fallback: what holds without a choice.
        """
        asked = self.parameters.get(name)
        if asked is None or asked == fallback:
            return fallback
        if asked in options:
            return asked
        self.refuse(name, what)
        return fallback

    def refuse(self, name: str, what: str) -> None:
        """Take a value out of the URL that names nothing, and keep a sentence about it."""
        asked = self.parameters.pop(name, "")
        self.problems.append(f"There is no {what} {literal(asked)} here; the link may be old or mistyped.")

    def number(self, name: str, what: str) -> int | None:
        """The whole number from 0 on that the URL gives under `name`; None without one, or where it is none."""
        asked = self.parameters.get(name)
        if asked is None or (asked.isascii() and asked.isdigit() and len(asked) <= _MOST_DIGITS):
            return None if asked is None else int(asked)
        self.refuse(name, what)
        return None

    def choices(self, name: str, options: Iterable[str], what: str, fallback: Sequence[str]) -> list[str]:
        """The options that the URL names under `name`, commas between them; the fallback where it names none.

        Unknown ones are refused as in `choice`; the others hold.
        """
        asked = [one for one in self.parameters.get(name, "").split(",") if one]
        if not asked:
            return list(fallback)
        known = set(options)
        unknown = [literal(one) for one in dict.fromkeys(asked) if one not in known]
        if unknown:
            named, more = unknown[:_MOST_NAMED], len(unknown) - _MOST_NAMED
            rest = f" and {more:,} more" if more > 0 else ""
            self.problems.append(
                f"There is no {what} {', '.join(named)}{rest} here; the link may be old or mistyped."
            )
        kept = [one for one in dict.fromkeys(asked) if one in known]
        self.write(name, ",".join(kept))
        return kept or list(fallback)

    def flag(self, name: str) -> bool:
        """Whether the URL says `name=1`."""
        return self.choice(name, ("0", "1"), f"setting {name} =", "0") == "1"

    def write(self, name: str, value: str) -> None:
        """Put a value into the URL; an empty one or a cleared flag leaves it."""
        if value in ("", "0"):
            self.parameters.pop(name, None)
        else:
            self.parameters[name] = value

    def show_problems(self) -> None:
        """Draw the sentences about refused values."""
        for problem in self.problems:
            st.warning(problem, icon=":material/link_off:")


def select(
    address: Address,
    name: str,
    label: str,
    labels: dict[str, str],
    *,
    what: str,
    fallback: str,
    forget: Iterable[str] = (),
    explanation: str | None = None,
) -> str:
    """A select box whose choice stands in the URL under `name`.

    Args:
        address: the page's address.
        name: the query parameter.
        label: the widget's label.
        labels: option → how it is shown, as plain text.
        what: what is chosen, in words.
        fallback: the option that holds without a choice.
        forget: parameters that lose their meaning when this one changes.
        explanation: the tooltip.
    """
    key = f"address-{name}"
    st.session_state[key] = address.choice(name, labels, what, fallback)

    def changed() -> None:
        for other in forget:
            address.write(other, "")
        address.write(name, "" if st.session_state[key] == fallback else st.session_state[key])

    choice = st.selectbox(
        label,
        list(labels),
        format_func=lambda option: printable(labels[option]),
        key=key,
        on_change=changed,
        help=explanation,
    )
    return choice if choice is not None else fallback


def select_label(address: Address, given: Mapping[str, Sequence[str]]) -> Callable[[str], bool]:
    """A select box of the labels that people gave to runs; says of a run whether it bears the one that is chosen.

    Args:
        address: the page's address.
        given: run → its labels; where there are none, and the URL names none, nothing is drawn.
    """
    known = sorted({label for labels in given.values() for label in labels})
    if not known and "label" not in address.parameters:
        return lambda _run: True
    options = {_ALL: "All"} | {label: label for label in known}
    wanted = select(address, "label", "Label of the run", options, what="label", fallback=_ALL)
    return lambda run: wanted == _ALL or wanted in given.get(run, ())


def select_several(
    address: Address,
    name: str,
    label: str,
    labels: dict[str, str],
    *,
    what: str,
    fallback: Sequence[str],
    most: int | None = None,
    forget: Iterable[str] = (),
    explanation: str | None = None,
) -> list[str]:
    """A box of several choices that stand in the URL under `name`, with commas between them.

    Args:
        address: the page's address.
        name: the query parameter.
        label: the widget's label.
        labels: option → how it is shown, as plain text.
        what: what is chosen, in words.
        fallback: the options that hold without a choice.
        most: how many may be chosen; None for all.
        forget: parameters that lose their meaning when this one changes.
        explanation: the tooltip.
    """
    key = f"address-{name}"
    st.session_state[key] = address.choices(name, labels, what, fallback)[:most]

    def changed() -> None:
        for other in forget:
            address.write(other, "")
        address.write(name, ",".join(st.session_state[key]))

    return st.multiselect(
        label,
        list(labels),
        format_func=lambda option: printable(labels[option]),
        key=key,
        on_change=changed,
        max_selections=most,
        help=explanation,
    )


def toggle(
    address: Address,
    name: str,
    label: str,
    *,
    explanation: str | None = None,
    forget: Iterable[str] = (),
) -> bool:
    """A switch whose state stands in the URL as `name=1`."""
    key = f"address-{name}"
    st.session_state[key] = address.flag(name)

    def changed() -> None:
        for other in forget:
            address.write(other, "")
        address.write(name, "1" if st.session_state[key] else "")

    return st.toggle(label, key=key, on_change=changed, help=explanation)


def number(address: Address, name: str, label: str, *, what: str, forget: Iterable[str] = ()) -> int | None:
    """A box for a whole number that stands in the URL under `name`; None while it is empty.

    Args:
        address: the page's address.
        name: the query parameter.
        label: the widget's label.
        what: what the number is, in words.
        forget: parameters that lose their meaning when this one changes.
    """
    key = f"address-{name}"
    st.session_state[key] = address.number(name, what)

    def changed() -> None:
        for other in forget:
            address.write(other, "")
        given = st.session_state[key]
        # Not `write`: a 0 that someone typed is a number here.
        address.parameters.pop(name, None)
        if given is not None:
            address.parameters[name] = str(given)

    given: int | None = st.number_input(
        label, min_value=0, max_value=10**_MOST_DIGITS - 1, step=1, key=key, on_change=changed
    )
    return given


def searched(address: Address, name: str, label: str, *, explanation: str, forget: Iterable[str] = ()) -> str:
    """A box for words to look for, which stand in the URL under `name`."""
    key = f"address-{name}"
    st.session_state[key] = address.parameters.get(name, "")[:_MOST_TEXT]

    def changed() -> None:
        for other in forget:
            address.write(other, "")
        address.write(name, st.session_state[key].strip())

    asked = st.text_input(label, key=key, max_chars=_MOST_TEXT, on_change=changed, type="search", help=explanation)
    return (asked or "").strip()
