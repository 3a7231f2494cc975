"""A results database of any size, made by the database itself: systems, conversations, verdicts, arms."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import String, cast, insert, literal, select
from sqlalchemy.orm import Session

from vivace.store.columns import now
from vivace.store.database import Database
from vivace.store.tables import (
    Arm,
    Attempt,
    Conversation,
    Criterion,
    Dataset,
    Diagnosis,
    Hardware,
    Judge,
    Judging,
    Model,
    Reply,
    Run,
    Score,
    Trial,
    Turn,
    Verdict,
)
from vivace.tracks.dialogue.judging.results import score_judging
from vivace_rubrics.criteria import Axis

CRITERIA = (5, 6)
"""Of one conversation and the next."""
TURNS = 3
LAYERS = 16
PROMPTS = 20
AT_ONCE = 5000
FORMS = ("audio-16k", "transcript")
"""Of two systems that are one model, so that there are gaps between them."""


@dataclass(frozen=True)
class Amount:
    """How much there is of everything."""

    conversations: int
    systems: int = 20
    arms: int = 200
    arms_of_a_run: int = 20

    @property
    def verdicts(self) -> int:
        """Those that count."""
        return self.systems * (self.conversations * sum(CRITERIA) // 2)


def fill(database: Database, amount: Amount) -> None:
    """Write systems with replies, calls and verdicts, judged as at the end of a run, and arms with figures."""
    with database.write() as session:
        dataset = _dataset(session, amount.conversations)
        judgings = _systems(session, dataset, amount)
    with database.write() as session:
        _answers(session, dataset)
    for judging in judgings:
        with database.write() as session:
            score_judging(session, judging)
    with database.write() as session:
        _arms(session, amount)


def _dataset(session: Session, conversations: int) -> int:
    row = Dataset(
        fingerprint=_hash("data"), name="generated", revision=_hash("data"), has_audio=True,
        conversations=conversations,
    )  # fmt: skip
    session.add(row)
    session.flush()
    axes = list(Axis)
    _insert(session, Conversation, (
        {"dataset_id": row.id, "external_id": f"conversation-{place:06d}", "position": place,
         "axis": axes[place % len(axes)], "speaker": f"speaker {place % 20}"}
        for place in range(conversations)
    ))  # fmt: skip
    ids = session.scalars(select(Conversation.id).order_by(Conversation.position)).all()
    _insert(session, Turn, (
        {"conversation_id": key, "number": number, "role": "user", "audio_seconds": 2.0 + place % 17,
         "transcript": f"This is what is said in turn {number} of conversation {place}."}
        for place, key in enumerate(ids) for number in range(1, TURNS + place % 3)
    ))  # fmt: skip
    _insert(session, Criterion, (
        {"conversation_id": key, "number": number, "text": f"The reply meets criterion {number}."}
        for place, key in enumerate(ids) for number in range(CRITERIA[place % 2])
    ))  # fmt: skip
    return row.id


def _systems(session: Session, dataset: int, amount: Amount) -> list[str]:
    judge = Judge(fingerprint=_hash("judge"), target="checks", name="checks", parameters={}, parser_version="1")
    session.add(judge)
    items = list(session.scalars(select(Conversation.external_id).order_by(Conversation.position)))
    judgings = []
    for place in range(amount.systems):
        name = f"system-{place // len(FORMS):02d}"
        model = session.scalars(select(Model).where(Model.name == name)).one_or_none() or Model(
            fingerprint=_hash(name), target=f"litellm:{name}", adapter="litellm", name=name, parameters={},
            organisation=f"organisation {place % 5}", size=f"{1 + place % 7}B", open_weights=place % 4 < 2,
            licence="apache-2.0",
        )  # fmt: skip
        session.add(model)
        session.flush()
        run = Run(
            id=_hash("run", place)[:32], identity=_hash("identity", place), ordinal=0, track="audio-multichallenge",
            dataset_id=dataset, model_id=model.id, input_form=FORMS[place % 2], items=items, limited=False,
            manifest={}, hearing={"outcome": "passed"},
        )  # fmt: skip
        session.add(run)
        session.flush()
        judging = Judging(id=_hash("judging", place), run_id=run.id, judge_id=judge.id)
        session.add(judging)
        judgings.append(judging.id)
    return judgings


def _answers(session: Session, dataset: int) -> None:
    """Replies, calls and verdicts of all runs on all conversations: the database makes them of each other."""
    at = literal(now(), Reply.created_at.type)
    run, one = Run.__table__.c, Conversation.__table__.c
    every = select(run.id, one.id).select_from(Run.__table__.join(Conversation.__table__, one.dataset_id == dataset))
    of_track = every.where(run.track == "audio-multichallenge").order_by(run.id, one.position)
    text = literal("This is the reply to conversation ", String) + one.external_id
    session.execute(insert(Reply.__table__).from_select(
        ["run_id", "conversation_id", "repeat", "text", "ttft_s", "total_s", "created_at"],
        of_track.add_columns(literal(0), text, literal(0.5), 1.0 + one.position % 10, at),
    ))  # fmt: skip
    reply, judging, criterion = (table.__table__.c for table in (Reply, Judging, Criterion))
    session.execute(insert(Attempt.__table__).from_select(
        ["run_id", "conversation_id", "stage", "seconds", "input_tokens", "output_tokens", "cached", "cost_usd",
         "created_at"],
        select(reply.run_id, reply.conversation_id, literal("generate"), literal(1.0), literal(500), literal(50),
               literal(False), literal(0.001), at),
    ))  # fmt: skip
    # Reduced before they are multiplied, or PostgreSQL's integers overflow.
    chance = (reply.id % 1000 * 919 + criterion.id % 1000 * 729) % 1000
    met = chance < 700 + (reply.id % 7) * 30
    session.execute(insert(Verdict.__table__).from_select(
        ["judging_id", "reply_id", "criterion_id", "vote", "met", "explanation", "created_at"],
        select(judging.id, reply.id, criterion.id, literal(0), met,
               literal("Because of reply ", String) + cast(reply.id, String), at)
        .select_from(Reply.__table__)
        .join(Judging.__table__, judging.run_id == reply.run_id)
        .join(Criterion.__table__, criterion.conversation_id == reply.conversation_id)
        .order_by(judging.id, reply.id, criterion.id),
    ))  # fmt: skip


def _arms(session: Session, amount: Amount) -> None:
    """Runs of an efficiency track with their arms, figures and layers."""
    tasks = Dataset(fingerprint=_hash("tasks"), name="sums", revision=_hash("tasks"), has_audio=False)
    machine = Hardware(
        fingerprint=_hash("machine"), details={"device": "cpu", "processor": "a processor", "threads": 2}
    )
    session.add_all([tasks, machine])
    session.flush()
    for place in range(-(-amount.arms // amount.arms_of_a_run)):
        model = Model(
            fingerprint=_hash("arms", place), target=f"local:model-{place}", adapter="local", name=f"model-{place}",
            parameters={},
        )  # fmt: skip
        session.add(model)
        session.flush()
        run = Run(
            id=_hash("arms", place)[:32], identity=_hash("arms", place), ordinal=0, track="sparsity",
            dataset_id=tasks.id, model_id=model.id, hardware_id=machine.id, method="dense", input_form="text",
            items=[f"sums/{number}" for number in range(PROMPTS)], limited=True, manifest={}, status="generated",
        )  # fmt: skip
        session.add(run)
        session.flush()
        for number in range(amount.arms_of_a_run):
            share = 1 - 0.6 * number / amount.arms_of_a_run
            name = "dense" if not number else f"teal(sparsity={1 - share:.3f})"
            arm = Arm(
                run_id=run.id, name=name, method=name.partition("(")[0], settings={"sparsity": 1 - share},
                position=number, baseline=not number, ended_at=now() + timedelta(seconds=number),
                unofficial_reasons=["fewer than 30 prompts"],
            )  # fmt: skip
            session.add(arm)
            session.flush()
            session.add_all(_figures(arm, share, place))
            _insert(session, Trial, (
                {"arm_id": arm.id, "prompt": f"sums/{prompt}", "repetition": 0, "measurements": {"trial": {}}}
                for prompt in range(PROMPTS)
            ))  # fmt: skip
            _insert(session, Diagnosis, (
                {"arm_id": arm.id, "kind": "kept_channels", "layer": f"layers.{layer}.{part}", "setting": "",
                 "value": share, "n": PROMPTS}
                for layer in range(LAYERS) for part in ("attention", "mlp")
            ))  # fmt: skip


def _figures(arm: Arm, share: float, place: int) -> Iterator[Score]:
    quality = 0.8 - 0.3 * (1 - share) ** 2 + 0.01 * (place % 5)
    values = {
        "quality": (quality, 0.04), "trials": (float(PROMPTS), None), "tokens_per_s": (20 / share, 0.5),
        "ttft_s": (0.2, 0.01), "floor_tokens_per_s": (60.0, 0.5), "peak_bytes_process": (2e9 * share, None),
        **({} if arm.baseline else {
            "speed_ratio": (1 / share, 0.03), "ttft_ratio": (0.9 + 0.1 * share, 0.02), "bytes_ratio": (share, 0.001),
            "flops_ratio": (share, 0.001), "quality_difference": (quality - 0.8, 0.03), "comparable": (1.0, None),
        }),
    }  # fmt: skip
    for metric, (value, half) in values.items():
        low, high = (None, None) if half is None else (value - half, value + half)
        yield Score(arm_id=arm.id, metric=metric, slice="", value=value, low=low, high=high, n=PROMPTS, unscored=0)


def _insert(session: Session, table: Any, rows: Iterator[dict[str, Any]]) -> None:
    every = list(rows)
    for start in range(0, len(every), AT_ONCE):
        session.execute(insert(table), every[start : start + AT_ONCE])


def _hash(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()
