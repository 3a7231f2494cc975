"""Searching the conversations of one or more judgings: a page of those that match, and what lies beside one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from sqlalchemy import ColumnElement, Select, and_, case, exists, false, func, or_, select, tuple_
from sqlalchemy.orm import Session, aliased

from vivace.store.database import Database
from vivace.store.outcomes import read_back
from vivace.store.tables import Conversation, Criterion, Judging, Outcome, Run, Turn

Result = Literal["pass", "fail", "unscored", "absent"]
"""How a conversation came out for one judging; `absent` where it was not part of its run."""
RESULTS: tuple[Result, ...] = get_args(Result)
PAGE = 50
"""Conversations that are listed at once."""


@dataclass(frozen=True)
class Wanted:
    """What conversations are looked for; None and an empty text leave all in.

    Attributes:
        axis: of the conversation.
        text: stands in its id, in a turn's transcript or in a criterion, in capitals or not.
        turns: the fewest and the most user turns.
        seconds: the least and the most seconds that all its user turns take together.
        results: how it came out for each judging, in their order.
        differs: it did not come out alike for all judgings.
    """

    axis: str | None = None
    text: str = ""
    turns: tuple[int | None, int | None] = (None, None)
    seconds: tuple[float | None, float | None] = (None, None)
    results: tuple[Result | None, ...] = ()
    differs: bool = False


@dataclass(frozen=True)
class Came:
    """How one conversation came out for one judging."""

    result: Result
    passes: int = 0
    """Replies with every criterion met."""
    replies: int = 0
    met: int = 0
    """Criteria, once for each reply."""
    criteria: int = 0


@dataclass(frozen=True)
class Listed:
    """One conversation of a list."""

    id: str
    axis: str
    user_turns: int
    seconds: float | None
    """Of its user turns together; None where the store lacks the recording of any."""
    came: tuple[Came, ...]
    """For each judging, in their order."""


@dataclass(frozen=True)
class Page:
    """A part of the conversations that match, in the dataset's order.

    Attributes:
        rows: the conversations.
        first: how many match before the first of them.
        total: how many match.
        opened: the one that is to be shown: the one asked for, else the first; None where there is none.
        previous, next: the ones that match before and after it.
        previous_page, next_page: the first ones of the pages before and after this.
    """

    rows: tuple[Listed, ...]
    first: int
    total: int
    opened: str | None
    previous: str | None
    next: str | None
    previous_page: str | None
    next_page: str | None


def page_of(
    database: Database, judgings: Sequence[str], wanted: Wanted, opened: str | None = None, size: int = PAGE
) -> Page:
    """The page of matching conversations on which one stands, or where it would stand if it matched.

    Reads one short row for each conversation and judging, and no verdict, reply or call.

    Args:
        database: with all judgings, which are of the same data.
        judgings: whose results are listed; what is listed are the conversations of the first.
        wanted: which conversations.
        opened: the dataset's id of one of them; None, or one that the first judging does not have, is the first.
        size: how many stand on a page.
    """
    with database.read() as session:
        search = _Search(session, judgings, wanted)
        here = None if opened is None else search.place(opened)
        before = 0 if here is None else search.count(here)
        first = before // size * size
        start = max(0, first - 1)
        around = search.rows(start, size + 2)
        keys = {place: key for place, (_, key) in enumerate(around, start=start)}
        is_listed = here is None or search.matches(here)
        return Page(
            rows=_listed(session, judgings, [row_id for row_id, _ in around[first - start :][:size]]),
            first=first,
            total=search.count(),
            opened=keys.get(0) if here is None else opened,
            previous=keys.get(before - 1),
            next=keys.get(before + is_listed),
            previous_page=search.rows(first - size, 1)[0][1] if first else None,
            next_page=keys.get(first + size),
        )


class _Search:
    """The query for what is wanted; conversations stand in the order of (position, row)."""

    def __init__(self, session: Session, judgings: Sequence[str], wanted: Wanted) -> None:
        self.session = session
        self.judging = judgings[0]
        self.sides: list[Any] = [aliased(Outcome) for _ in judgings]
        self.first, *others = self.sides
        compared = wanted.differs or any(wanted.results[1:])
        self.others = list(zip(others, judgings[1:], strict=True)) if compared else []
        self.conditions = [
            self.first.judging_id == self.judging,
            *(_came_out(side, result) for side, result in zip(self.sides, wanted.results, strict=False) if result),
            *_of_the_data(self.first.conversation_id, wanted),
        ]
        if wanted.differs:
            self.conditions.append(or_(false(), *(_unlike(self.first, side) for side in others)))

    def _matching(self, *columns: Any) -> Select[Any]:
        query = select(*columns).select_from(self.first)
        for side, judging in self.others:
            same = and_(side.judging_id == judging, side.conversation_id == self.first.conversation_id)
            query = query.outerjoin(side, same)
        return query.where(*self.conditions)

    def count(self, before: tuple[int, int] | None = None) -> int:
        """How many match, before a place or at all."""
        query = self._matching(func.count())
        if before is not None:
            query = query.where(tuple_(self.first.position, self.first.conversation_id) < before)
        return self.session.scalar(query) or 0

    def place(self, key: str) -> tuple[int, int] | None:
        """Where a conversation of the first judging stands, whether it matches or not."""
        data = select(Run.dataset_id).join(Judging, Judging.run_id == Run.id).where(Judging.id == self.judging)
        query = (
            select(Outcome.position, Outcome.conversation_id)
            .join(Conversation, Conversation.id == Outcome.conversation_id)
            .where(
                Outcome.judging_id == self.judging,
                Conversation.dataset_id == data.scalar_subquery(),
                Conversation.external_id == key,
            )
        )
        found = self.session.execute(query).one_or_none()
        return None if found is None else (found[0], found[1])

    def matches(self, place: tuple[int, int]) -> bool:
        """Whether the conversation in a place matches."""
        return bool(self.session.scalar(self._matching(func.count()).where(self.first.conversation_id == place[1])))

    def rows(self, start: int, count: int) -> list[tuple[int, str]]:
        """Row and id of so many of those that match, from a place among them on."""
        ordered = (
            self._matching(self.first.conversation_id)
            .order_by(self.first.position, self.first.conversation_id)
            .offset(max(0, start))
            .limit(count)
        )
        order = list(self.session.scalars(ordered))
        keys = select(Conversation.id, Conversation.external_id).where(Conversation.id.in_(order))
        named = dict(self.session.execute(keys).all())
        return [(row_id, named[row_id]) for row_id in order]


def _came_out(side: Any, result: Result) -> ColumnElement[bool]:
    if result == "absent":
        return cast("ColumnElement[bool]", side.judging_id.is_(None))
    met = {"pass": True, "fail": False, "unscored": None}[result]
    return and_(side.judging_id.is_not(None), side.passed.is_(met))


def _unlike(first: Any, side: Any) -> ColumnElement[bool]:
    """Another result, or another share of replies that pass; one that is absent is unlike every other."""
    another_rate = side.pass_rate != first.pass_rate
    return or_(side.judging_id.is_(None), side.passed.is_distinct_from(first.passed), another_rate)


def _of_the_data(row_id: Any, wanted: Wanted) -> Iterator[ColumnElement[bool]]:
    """What the conversation itself has to be like; nothing is looked up that is not asked for."""
    if wanted.axis is not None:
        yield exists().where(Conversation.id == row_id, Conversation.axis == wanted.axis)
    if wanted.text:
        yield or_(
            *(
                exists().where(table_row == row_id, column.icontains(wanted.text, autoescape=True))
                for table_row, column in (
                    (Conversation.id, Conversation.external_id),
                    (Turn.conversation_id, Turn.transcript),
                    (Criterion.conversation_id, Criterion.text),
                )
            )
        )
    said = (Turn.conversation_id == row_id) & (Turn.role == "user")
    for figure, (least, most) in (
        (select(func.count()).where(said), wanted.turns),
        (select(_seconds()).where(said), wanted.seconds),
    ):
        if least is not None:
            yield figure.scalar_subquery() >= least
        if most is not None:
            yield figure.scalar_subquery() <= most


def _seconds() -> ColumnElement[float | None]:
    """Of some turns together; null where one is not known."""
    return case((func.count(Turn.id) == func.count(Turn.audio_seconds), func.sum(Turn.audio_seconds)))


def _listed(session: Session, judgings: Sequence[str], row_ids: Sequence[int]) -> tuple[Listed, ...]:
    about = (
        select(Conversation.id, Conversation.external_id, Conversation.axis, func.count(Turn.id), _seconds())
        .join(Turn, (Turn.conversation_id == Conversation.id) & (Turn.role == "user"), isouter=True)
        .where(Conversation.id.in_(row_ids))
        .group_by(Conversation.id)
    )
    known = {row.id: row for row in session.execute(about)}
    outcomes = select(Outcome).where(Outcome.judging_id.in_(judgings), Outcome.conversation_id.in_(row_ids))
    came = {(one.conversation_id, one.judging_id): _came(one) for one in session.scalars(outcomes)}
    return tuple(
        Listed(*known[row_id][1:], tuple(came.get((row_id, judging), Came("absent")) for judging in judgings))
        for row_id in row_ids
    )


def _came(outcome: Outcome) -> Came:
    replies = read_back(outcome.verdicts)
    given = [met for reply in replies for met in reply]
    result: Result = "unscored" if outcome.passed is None else "pass" if outcome.passed else "fail"
    return Came(result, sum(map(all, replies)), len(replies), given.count(True), len(given))
