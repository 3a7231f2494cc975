"""Paragraphs about people who never lived, and a question about one of them, over one paragraph or two."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from vivace.tasks.base import Sample
from vivace.tasks.fitted.english import FIRST_NAMES, LAST_NAMES, PASTIMES, TOWN_BEGINNINGS, TOWN_ENDS, TRADES, WARES
from vivace.tasks.fitted.writer import Writer

_HEAD = "Answer the question at the end from the paragraphs below, in a few words."
_SECOND = "ABCDEFGHIJKLMNOPRSTVW"
"""First letters of middle names, which tell more people apart."""


@dataclass(frozen=True)
class _Person:
    name: str
    born: str
    trade: str
    pastime: str
    firm: str


@dataclass(frozen=True)
class _Firm:
    name: str
    town: str
    ware: str


def write_question(chance: random.Random, size: int, hops: int) -> Sample:
    """So many paragraphs besides those that the answer needs, in random order.

    Args:
        chance: draws everything.
        size: further paragraphs.
        hops: 1 asks where somebody was born; 2 asks in which town the firm is that somebody works for.
    """
    people, firms = _people(chance), _firms(chance)
    firm = next(firms)
    person = next(people)
    person = _Person(person.name, person.born, person.trade, person.pastime, firm.name)
    needed = [_about_person(person), *([_about_firm(firm)] if hops == 2 else [])]
    others = [_about_person(next(people)) if chance.random() < 0.6 else _about_firm(next(firms)) for _ in range(size)]
    paragraphs = [*needed, *others]
    order = chance.sample(range(len(paragraphs)), len(paragraphs))
    writer = Writer()
    writer.add(_HEAD)
    spans = {place: writer.add(paragraphs[place], "\n\n") for place in order}
    evidence = tuple(sorted((spans[place] for place in range(len(needed))), key=lambda span: span.start))
    if hops == 1:
        question, answer = f"In which town was {person.name} born?", person.born
        begun = f"{person.name} was born in"
    else:
        question, answer = f"In which town is the firm that {person.name} works for?", firm.town
        begun = f"The firm that {person.name} works for is in"
    writer.add(f"{question}\n", "\n\n")
    return Sample("", writer.text, (answer,), evidence, begun=begun)


def _about_person(person: _Person) -> str:
    article = "an" if person.trade[0] in "aeiou" else "a"
    return (
        f"{person.name} was born in {person.born} and became {article} {person.trade}. Today {person.name} works for "
        f"{person.firm} and likes {person.pastime}."
    )


def _about_firm(firm: _Firm) -> str:
    return f"{firm.name} is a firm in {firm.town}. It makes {firm.ware} and sells them by mail."


def _people(chance: random.Random) -> Iterator[_Person]:
    """People without end, each name once as long as there are new ones."""
    for name in _names(chance):
        yield _Person(name, _town(chance), chance.choice(TRADES), chance.choice(PASTIMES), _firm_name(chance))


def _names(chance: random.Random) -> Iterator[str]:
    told: set[str] = set()
    number = 0
    while True:
        name = f"{chance.choice(FIRST_NAMES)} {chance.choice(_SECOND)}. {chance.choice(LAST_NAMES)}"
        if name in told:  # so many people that names repeat: they are told apart as kings are
            number += 1
            name = f"{name} {number + 1}"
        told.add(name)
        yield name


def _firms(chance: random.Random) -> Iterator[_Firm]:
    told: set[str] = set()
    number = 0
    while True:
        name = _firm_name(chance)
        if name in told:
            number += 1
            name = f"{name} {number + 1}"
        told.add(name)
        yield _Firm(name, _town(chance), chance.choice(WARES))


def _firm_name(chance: random.Random) -> str:
    first, second, third = chance.sample(LAST_NAMES, 3)
    return f"{first}, {second} and {third}"


def _town(chance: random.Random) -> str:
    return chance.choice(TOWN_BEGINNINGS) + chance.choice(TOWN_ENDS)
