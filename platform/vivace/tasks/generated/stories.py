"""Stories in which people walk from place to place, and the question where one of them is at the end."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

from vivace.errors import UsageError
from vivace.tasks.base import Sample, Span
from vivace.tasks.generated.base import GeneratedTask

_PEOPLE = ("Ada", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Hugo")
_PLACES = ("bakery", "beach", "forest", "garden", "harbour", "kitchen", "library", "market", "school", "station")
_MOVES = ("went to the", "walked to the", "hurried to the", "came to the")


@dataclass(frozen=True)
class Stories(GeneratedTask):
    """Somebody's last place is asked for; the evidence is the sentence in which they went there.

    Attributes:
        sentences: of the story, at least one.
        people: in the story, at most eight; a question is only asked about somebody who has moved.
    """

    name: ClassVar[str] = "stories"
    metric: ClassVar[str] = "exact_match"
    most_tokens: ClassVar[int] = 32

    sentences: int = 8
    people: int = 3

    def __post_init__(self) -> None:
        """Refuse what no story can have."""
        if self.sentences < 1:
            raise UsageError(f"A story has at least one sentence, not {self.sentences}.")
        if not 1 <= self.people <= len(_PEOPLE):
            raise UsageError(f"A story has one to {len(_PEOPLE)} people, not {self.people}.")

    @property
    def revision(self) -> str:
        """The version of this generator."""
        return "1"

    def draw(self, chance: random.Random) -> Sample:
        """One story with its question."""
        people = chance.sample(_PEOPLE, self.people)
        last: dict[str, tuple[str, Span]] = {}
        story = ""
        for _ in range(self.sentences):
            person, place = chance.choice(people), chance.choice(_PLACES)
            sentence = f"{person} {chance.choice(_MOVES)} {place}."
            last[person] = (place, Span(len(story), len(story) + len(sentence)))
            story += f"{sentence} "
        asked = chance.choice(sorted(last))
        place, evidence = last[asked]
        return Sample(
            id="",
            prompt=f"{story.rstrip()}\nWhere is {asked}?\n",
            references=(f"{asked} is in the {place}.",),
            evidence=(evidence,),
        )
