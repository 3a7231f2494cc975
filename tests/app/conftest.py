"""A results database as runs leave it behind, made of real tables, migrations and recordings."""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from vivace.settings import Settings
from vivace.statistics.intervals import clustered_ratio, wilson
from vivace.store import migrate
from vivace.store.artifacts import Artifacts, open_artifacts
from vivace.store.outcomes import renew_outcomes
from vivace.store.tables import (
    Attempt,
    Conversation,
    Criterion,
    Dataset,
    Judge,
    Judging,
    Model,
    Reply,
    Run,
    Score,
    Turn,
    Verdict,
)
from vivace.store.verdicts import judged_conversations
from vivace.tracks.dialogue.judging.effort import renew_effort
from vivace.tracks.dialogue.summaries.gaps import renew_gaps
from vivace.tracks.dialogue.summaries.parts import write_parts

AXES = ("INFERENCE_MEMORY", "INSTRUCTION_RETENTION", "SELF_COHERENCE", "VOICE_EDITING")
START = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOSTILE = "<b onclick=alert(1)>bold</b> [link](http://evil.invalid) :smile: $x$ ![image](http://evil.invalid/i.png)"
"""Text that must reach the screen as it stands."""

LEMON = "A lemon sorbet with fresh mint would be lovely on Friday."

Verdicts = list[list[bool | None]]
"""Per conversation, one entry per criterion; None is unscored."""


def tone(container: str, hertz: float, seconds: float = 2.0) -> bytes:
    """A quiet tone as the bytes of a WAV, FLAC or Ogg file."""
    rate = 16_000
    wave = 0.1 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, rate, format=container)
    return buffer.getvalue()


def fingerprint(*parts: object) -> str:
    """A stand-in for the fingerprints that the platform computes."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


class Seed:
    """Writes datasets, judges and judged runs into one database."""

    def __init__(self, session: Session, artifacts: Artifacts) -> None:
        self.session = session
        self.artifacts = artifacts
        self.days = 0

    def dataset(self, name: str, conversations: int) -> Dataset:
        """A dataset whose conversations take the axes in turn, two spoken user turns and 2–3 criteria."""
        dataset = Dataset(fingerprint=fingerprint(name), name=name, revision=fingerprint(name), has_audio=True)
        self.session.add(dataset)
        self.session.flush()
        recordings = [
            self.artifacts.put(tone(container, hertz))
            for container, hertz in (("OGG", 330), ("WAV", 440), ("FLAC", 550))
        ]
        for position in range(conversations):
            conversation = Conversation(
                dataset_id=dataset.id,
                external_id=f"{name}-{position:03d}",
                position=position,
                axis=AXES[position % len(AXES)],
            )
            self.session.add(conversation)
            self.session.flush()
            spoken = [
                (1, "user", "My sister Ana is allergic to walnuts. Please keep that in mind for later."),
                (1, "assistant", "Of course, I will keep Ana's walnut allergy in mind."),
                (2, "user", "Suggest a dessert for our dinner on Friday, in one sentence."),
            ]
            for number, role, transcript in spoken:
                recording = recordings[(position + number) % 3] if role == "user" else None
                self.session.add(
                    Turn(
                        conversation_id=conversation.id,
                        number=number,
                        role=role,
                        transcript=transcript,
                        audio_sha256=recording,
                        audio_seconds=2.0 if recording else None,
                    )
                )
            texts = ["The reply suggests a dessert without walnuts.", "The reply is one sentence.", HOSTILE]
            for number, text in enumerate(texts[: 2 + position % 2]):
                self.session.add(Criterion(conversation_id=conversation.id, number=number, text=text))
        self.session.flush()
        return dataset

    def judge(self, name: str) -> Judge:
        """A judge."""
        judge = Judge(
            fingerprint=fingerprint(name),
            target=f"litellm:{name}",
            name=name,
            parameters={},
            parser_version="1",
        )
        self.session.add(judge)
        self.session.flush()
        return judge

    def judged_run(
        self,
        name: str,
        dataset: Dataset,
        judge: Judge,
        verdicts: Verdicts,
        *,
        replies: dict[int, str | None] | None = None,
        reasons: Sequence[str] = (),
        description: str | None = None,
        **run: Any,
    ) -> str:
        """A model, its run on a dataset and one judging of it with scores; returns the judging's id.

        Args:
            name: the model's name.
            dataset: what it was run on.
            judge: who judged.
            verdicts: what came out.
            replies: position of a conversation → its reply; None for a reply that never came.
            reasons: why the result is not official.
            description: the model's card.
            run: more columns of the run.
        """
        self.days += 1
        model = Model(
            fingerprint=fingerprint(name, self.days),
            target=f"litellm:{name}",
            adapter="litellm",
            name=name,
            parameters={},
            description=description,
        )
        self.session.add(model)
        self.session.flush()
        conversations = self.session.query(Conversation).filter_by(dataset_id=dataset.id).order_by("position").all()
        planned = conversations[: len(verdicts)]
        row = Run(
            id=fingerprint("run", name, self.days)[:32],
            identity=fingerprint("identity", name, self.days),
            ordinal=0,
            dataset_id=dataset.id,
            model_id=model.id,
            items=[conversation.external_id for conversation in planned],
            limited=len(planned) < len(conversations),
            manifest={},
            **{"track": "dialogue", "input_form": "audio-16k", "status": "generated", **run},
        )
        self.session.add(row)
        self.session.flush()
        judging = Judging(
            id=fingerprint("judging", name, self.days)[:32],
            run_id=row.id,
            judge_id=judge.id,
            status="ended",
            official=not reasons,
            unofficial_reasons=list(reasons),
            ended_at=START + timedelta(days=self.days),
        )
        self.session.add(judging)
        self.session.flush()
        answers = {position: (replies or {}).get(position, LEMON) for position in range(len(planned))}
        given = [
            Reply(
                run_id=row.id,
                conversation_id=conversation.id,
                text=(said := answers[position]),
                raw_text=f"<think>Ana eats none.</think>{said}" if position == 23 else None,
                unscored_reason="timeout" if said is None else None,
                ttft_s=None if said is None else 0.3 + 0.01 * position + 0.1 * self.days,
                total_s=None if said is None else 1.5 + 0.05 * position,
            )
            for position, conversation in enumerate(planned)
        ]
        self.session.add_all(given)
        self.session.flush()
        criteria = self._criteria(dataset)
        cost = None if row.imported else 0.0123
        self.session.execute(
            insert(Attempt),
            [{"run_id": row.id, "stage": "generate", "seconds": 1.5, "cost_usd": cost} for _ in planned],
        )
        self.session.execute(
            insert(Verdict),
            [
                {
                    "judging_id": judging.id,
                    "reply_id": reply.id,
                    "criterion_id": criterion,
                    "met": met,
                    "unscored_reason": "rate_limit" if met is None else None,
                    "explanation": None if met is None else "The reply names a lemon sorbet, which has no nuts.",
                }
                for reply, conversation, outcome in zip(given, planned, verdicts, strict=True)
                for criterion, met in zip(criteria[conversation.id], outcome, strict=True)
            ],
        )
        renew_outcomes(
            self.session,
            judging.id,
            {
                conversation.external_id: (dict(enumerate(outcome)),)
                for conversation, outcome in zip(planned, verdicts, strict=True)
            },
        )
        self._scores(judging, [conversation.axis for conversation in planned], verdicts)
        renew_effort(self.session, row.id)
        write_parts(self.session, judging.id, judged_conversations(self.session, judging.id))
        renew_gaps(self.session, row.id)
        return judging.id

    def _criteria(self, dataset: Dataset) -> dict[int, list[int]]:
        """Each conversation's criteria, in their order."""
        query = select(Criterion.conversation_id, Criterion.id).join(Conversation)
        rows = self.session.execute(query.filter_by(dataset_id=dataset.id).order_by(Criterion.number)).all()
        found: dict[int, list[int]] = {}
        for conversation, criterion in rows:
            found.setdefault(conversation, []).append(criterion)
        return found

    def _scores(self, judging: Judging, axes: Sequence[str], verdicts: Verdicts) -> None:
        for name in ("", *dict.fromkeys(axes)):
            part = [outcome for axis, outcome in zip(axes, verdicts, strict=True) if name in ("", axis)]
            for score in scores(part):
                self.session.add(Score(judging_id=judging.id, slice=name, **score))
        self.session.flush()


def scores(part: Verdicts) -> list[dict[str, Any]]:
    """The three summary rows of one slice, by the platform's definitions."""
    flat = [met for outcome in part for met in outcome]
    unscored = flat.count(None)
    complete = [outcome for outcome in part if None not in outcome]
    passes, met = sum(map(all, complete)), flat.count(True)
    apr = wilson(passes, len(complete))
    ars = clustered_ratio([(outcome.count(True), len(outcome) - outcome.count(None)) for outcome in part])
    possible = sum(False not in outcome for outcome in part)
    return [
        {
            "metric": "apr",
            "value": passes / len(complete) if complete else None,
            "low": apr.low if apr else None,
            "high": apr.high if apr else None,
            "minimum": passes / len(part),
            "maximum": possible / len(part),
            "count": passes,
            "n": len(part),
            "unscored": len(part) - len(complete),
        },
        {
            "metric": "ars",
            "value": met / (len(flat) - unscored) if len(flat) > unscored else None,
            "low": ars.low if ars else None,
            "high": ars.high if ars else None,
            "minimum": met / len(flat),
            "maximum": (met + unscored) / len(flat),
            "count": met,
            "n": len(flat),
            "unscored": unscored,
        },
        {
            "metric": "coverage",
            "value": (len(flat) - unscored) / len(flat),
            "count": len(flat) - unscored,
            "n": len(flat),
            "unscored": unscored,
        },
    ]


def outcomes(passed: int, conversations: int, unscored: int = 0) -> Verdicts:
    """Verdicts of which the first `passed` conversations pass; the last `unscored` ones lack a verdict."""
    result: Verdicts = []
    for position in range(conversations):
        size = 2 + position % 2
        outcome: list[bool | None] = [True] * size
        if position >= passed:
            outcome[-1] = False
        if position >= conversations - unscored:
            outcome[-1] = None
        result.append(outcome)
    return result


def fill(home: Path) -> dict[str, str]:
    """Fill the database under a home folder; returns a short name → the judging's id."""
    settings = Settings(home=home, database=None)
    database = migrate.open_for_writing(settings)
    with database.write() as session:
        seed = Seed(session, open_artifacts(settings))
        picnic, kitchen = seed.dataset("picnic", 24), seed.dataset("kitchen", 4)
        checks, strict = seed.judge("checks"), seed.judge("strict-judge")
        found = {
            "careful": seed.judged_run(
                "careful",
                picnic,
                checks,
                outcomes(23, 24),
                description="Hand-written demo system: remembers every fact it was told.",
            ),
            "steady": seed.judged_run("steady", picnic, checks, outcomes(22, 24)),
            "sleepy": seed.judged_run(
                "sleepy",
                picnic,
                checks,
                outcomes(9, 24, unscored=3),
                replies={22: None, 23: None, 0: HOSTILE},
                reasons=["coverage 95 % is below the track's 98 %"],
                description="Hand-written demo system: misses the end of long conversations.",
            ),
            "reader": seed.judged_run(
                "reader",
                picnic,
                checks,
                outcomes(16, 24),
                input_form="transcript",
                reasons=["the system read transcripts instead of hearing audio"],
            ),
            "imported": seed.judged_run(
                "Qwen3-Omni-30B-A3B-Instruct",
                picnic,
                checks,
                outcomes(2, 24),
                imported=True,
                reasons=["verdicts were imported, not made here"],
            ),
            "retracted": seed.judged_run(
                "withdrawn",
                picnic,
                checks,
                outcomes(24, 24),
                retracted_at=START,
                retraction_reason="the audio of another dataset was played",
            ),
            "strict": seed.judged_run("careful", picnic, strict, outcomes(12, 24)),
            "hostile": seed.judged_run(HOSTILE, kitchen, checks, outcomes(0, 4, unscored=4)),
        }
    database.close()
    return found


@pytest.fixture(scope="session", autouse=True)
def no_components_of_packages() -> Iterator[None]:
    """For each page under test Streamlit would read what all installed packages say of themselves: 0.3 seconds."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("streamlit.components.v2.manifest_scanner.scan_component_manifests", list)
        yield


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder that does not exist yet, which the app is told to use."""
    folder = tmp_path / "home"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VIVACE_HOME", str(folder))
    monkeypatch.delenv("VIVACE_DATABASE", raising=False)
    return folder


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A filled home that nobody changes; a short name → the judging's id."""
    folder = tmp_path_factory.mktemp("filled") / "home"
    return folder, fill(folder)


@pytest.fixture
def judgings(home: Path, filled: tuple[Path, dict[str, str]]) -> dict[str, str]:
    """A filled database in the home folder; a short name → the judging's id."""
    folder, found = filled
    shutil.copytree(folder, home, dirs_exist_ok=True)
    return found


@pytest.fixture
def empty(home: Path) -> None:
    """A database with its tables and no rows in the home folder."""
    migrate.open_for_writing(Settings(home=home, database=None)).close()


@pytest.fixture
def many(home: Path) -> int:
    """A database with 200 judged runs on the same data; returns their number."""
    settings = Settings(home=home, database=None)
    database = migrate.open_for_writing(settings)
    with database.write() as session:
        seed = Seed(session, open_artifacts(settings))
        dataset, judge = seed.dataset("picnic", 4), seed.judge("checks")
        for number in range(200):
            seed.judged_run(f"model-{number:03d}", dataset, judge, outcomes(number % 5, 4))
    database.close()
    return 200


@pytest.fixture
def second_track(judgings: dict[str, str], home: Path) -> str:
    """The filled database with one more run, on another track; returns the track."""
    settings = Settings(home=home, database=None)
    database = migrate.open_for_writing(settings)
    with database.write() as session:
        seed = Seed(session, open_artifacts(settings))
        seed.days = 100
        dataset = seed.dataset("sums", 4)
        seed.judged_run("counter", dataset, seed.judge("exact"), outcomes(2, 4), track="speculation")
    database.close()
    return "speculation"


@pytest.fixture
def hostile() -> str:
    """Text that must reach the screen as it stands."""
    return HOSTILE
