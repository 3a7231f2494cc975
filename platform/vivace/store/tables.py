"""The tables of the results database, each with the natural key that makes repeated work harmless."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    Index,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, defer, mapped_column

from vivace.store.columns import Message, Name, UtcDateTime, Values, Words
from vivace.store.columns import now as now

_Json = Values()


class Base(DeclarativeBase):
    """The declarative base; constraint names are fixed so that migrations can name them on both databases."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        dict[str, Any]: _Json,
        list[str]: _Json,
        datetime: UtcDateTime,
    }


class Model(Base):
    """A system under test: what it is called, how it is asked, and its card."""

    __tablename__ = "model"

    id: Mapped[int] = mapped_column(primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64), unique=True)
    """SHA-256 of adapter, name, address, generation parameters and, for recorded replies, their bytes."""
    target: Mapped[str] = mapped_column(Name)
    adapter: Mapped[str]
    name: Mapped[str] = mapped_column(Name)
    """As the board shows it."""
    address: Mapped[str | None] = mapped_column(Name)
    parameters: Mapped[dict[str, Any]]
    organisation: Mapped[str | None] = mapped_column(Name)
    size: Mapped[str | None] = mapped_column(Name)
    open_weights: Mapped[bool | None]
    licence: Mapped[str | None] = mapped_column(Name)
    description: Mapped[str | None] = mapped_column(Words)

    @property
    def is_recorded(self) -> bool:
        """Whether its replies were made elsewhere, so that their times are what whoever submitted them wrote."""
        return self.adapter in ("replay", "import")

    @property
    def is_cascade(self) -> bool:
        """Whether it is of two stages: an ear that writes down what it hears, and a model that answers that."""
        return "ear" in self.parameters


class Dataset(Base):
    """A set of conversations at one revision."""

    __tablename__ = "dataset"

    id: Mapped[int] = mapped_column(primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64), unique=True)
    name: Mapped[str] = mapped_column(Name)
    revision: Mapped[str]
    """A hub commit, or the SHA-256 of the local file."""
    has_audio: Mapped[bool]
    conversations: Mapped[int | None]
    """How many make it whole, stored here or not; null of tasks, and where it has not been kept so far."""
    hidden_since: Mapped[datetime | None]
    """When its items were hidden from all but the operator; null of a set whose items may be shown."""


class Judge(Base):
    """A judge as an instrument; two scores compare only where the fingerprint is the same."""

    __tablename__ = "judge"

    id: Mapped[int] = mapped_column(primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64), unique=True)
    target: Mapped[str] = mapped_column(Name)
    name: Mapped[str] = mapped_column(Name)
    address: Mapped[str | None] = mapped_column(Name)
    prompt_name: Mapped[str | None] = mapped_column(Name)
    prompt_sha256: Mapped[str | None] = mapped_column(String(64))
    prompt: Mapped[str | None] = mapped_column(Words)
    parameters: Mapped[dict[str, Any]]
    parser_version: Mapped[str]


class Hardware(Base):
    """A machine that runs were executed on."""

    __tablename__ = "hardware"

    id: Mapped[int] = mapped_column(primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64), unique=True)
    details: Mapped[dict[str, Any]]


class Conversation(Base):
    """One conversation of a dataset."""

    __tablename__ = "conversation"
    __table_args__ = (UniqueConstraint("dataset_id", "external_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    dataset_id: Mapped[int] = mapped_column(ForeignKey("dataset.id", ondelete="CASCADE"))
    external_id: Mapped[str] = mapped_column(Name)
    """The dataset's own id."""
    position: Mapped[int]
    axis: Mapped[str]
    speaker: Mapped[str | None] = mapped_column(Name)
    """Who speaks its user turns, where the data say so."""


class Turn(Base):
    """One user or assistant turn; user and assistant turns are numbered alike, from 1."""

    __tablename__ = "turn"
    __table_args__ = (UniqueConstraint("conversation_id", "number", "role"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    conversation_id: Mapped[int] = mapped_column(ForeignKey("conversation.id", ondelete="CASCADE"))
    number: Mapped[int]
    role: Mapped[str] = mapped_column(String(16))
    transcript: Mapped[str | None] = mapped_column(Words)
    audio_sha256: Mapped[str | None] = mapped_column(String(64))
    audio_seconds: Mapped[float | None]


class Criterion(Base):
    """One rubric item; keyed by its place, because a rubric may hold the same sentence twice."""

    __tablename__ = "criterion"
    __table_args__ = (UniqueConstraint("conversation_id", "number"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    conversation_id: Mapped[int] = mapped_column(ForeignKey("conversation.id", ondelete="CASCADE"))
    number: Mapped[int]
    """Its place in the rubric, from 0."""
    text: Mapped[str] = mapped_column(Words)
    machine_check: Mapped[dict[str, Any] | None]


class Run(Base):
    """One model on one track with one configuration."""

    __tablename__ = "run"
    __table_args__ = (UniqueConstraint("identity", "ordinal"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    identity: Mapped[str] = mapped_column(String(64))
    """SHA-256 of everything that makes the result."""
    ordinal: Mapped[int]
    """0, or the count of `--force` on the same identity."""
    track: Mapped[str]
    dataset_id: Mapped[int] = mapped_column(ForeignKey("dataset.id"))
    model_id: Mapped[int] = mapped_column(ForeignKey("model.id"))
    hardware_id: Mapped[int | None] = mapped_column(ForeignKey("hardware.id"))
    method: Mapped[str | None] = mapped_column(Name)
    """What the model decoded with, null for plainly; of an efficiency run, the baseline."""
    input_form: Mapped[str]
    """`audio-16k`, `audio-original` or `transcript`."""
    output_form: Mapped[str] = mapped_column(String(16), default="text", server_default="text")
    """`text` or `audio`: what the model was asked to answer with."""
    repeats: Mapped[int] = mapped_column(default=1)
    """Replies generated to each conversation."""
    limited: Mapped[bool]
    """Whether the items are a part of the dataset."""
    imported: Mapped[bool] = mapped_column(default=False)
    status: Mapped[str] = mapped_column(String(16), default="open")
    """`open`, or `generated` once every planned reply is recorded."""
    manifest: Mapped[dict[str, Any]]
    hearing: Mapped[dict[str, Any] | None]
    """How the hearing check came out, with its probes; null where none was made."""
    measured: Mapped[dict[str, Any] | None]
    """Of an efficiency run: the device's floor, and for each session of trials what the audits found."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    retracted_at: Mapped[datetime | None]
    retraction_reason: Mapped[str | None] = mapped_column(Words)
    owner: Mapped[str | None] = mapped_column(Name)
    """Who submitted it, by the name that a token or a login gives; null where the operator did."""
    private_since: Mapped[datetime | None]
    """When it was made private, seen by its owner and the operator alone; null of a public one."""
    # The last column: SQLite reads through all that stands in a row before what is asked for.
    items: Mapped[list[str]]
    """The conversations planned, by the dataset's ids, in order."""


RUN_IN_SHORT = tuple(defer(column) for column in (Run.items, Run.manifest, Run.measured))
"""For questions about many runs: without what grows with all that a run planned and saw."""


class Reply(Base):
    """What the model answered to one conversation, or why it did not."""

    __tablename__ = "reply"
    __table_args__ = (UniqueConstraint("run_id", "conversation_id", "repeat"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"))
    conversation_id: Mapped[int] = mapped_column(ForeignKey("conversation.id"), index=True)
    repeat: Mapped[int] = mapped_column(default=0)
    text: Mapped[str | None] = mapped_column(Words)
    raw_text: Mapped[str | None] = mapped_column(Words)
    """All that the model wrote, where it thought aloud before its reply; null where that is the reply."""
    audio_sha256: Mapped[str | None] = mapped_column(String(64))
    unscored_reason: Mapped[str | None]
    """Why there is no reply to judge; null when there is one."""
    detail: Mapped[str | None] = mapped_column(Message)
    finish_reason: Mapped[str | None] = mapped_column(Name)
    model_snapshot: Mapped[str | None] = mapped_column(Name)
    """The model name that the server itself reported."""
    ttft_s: Mapped[float | None]
    first_audio_s: Mapped[float | None]
    total_s: Mapped[float | None]
    heard: Mapped[list[Any] | None] = mapped_column(_Json)
    """Of a cascade, for each user turn that its ear heard: `number`, `text` or `unscored` and `detail`, `seconds`,
    `cost_usd`, and against the set's transcript `errors` and `words`; null of systems that hear for themselves."""
    kept_share: Mapped[float | None]
    """The part of the prompt's tokens that went through the model's last layer; null where prompts are read whole."""
    created_at: Mapped[datetime] = mapped_column(default=now)


class Judging(Base):
    """One judge over one run; a row of the dialogue board."""

    __tablename__ = "judging"
    __table_args__ = (UniqueConstraint("run_id", "judge_id", "votes"),)

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"))
    judge_id: Mapped[int] = mapped_column(ForeignKey("judge.id"))
    votes: Mapped[int] = mapped_column(default=1)
    status: Mapped[str] = mapped_column(String(16), default="open")
    """`open`, or `ended` once every criterion is recorded and the scores are computed."""
    official: Mapped[bool] = mapped_column(default=False)
    unofficial_reasons: Mapped[list[str]] = mapped_column(default=list)
    created_at: Mapped[datetime] = mapped_column(default=now)
    ended_at: Mapped[datetime | None]
    retracted_at: Mapped[datetime | None]
    """When this judging alone was taken off the board; the run's own retraction takes off all of its judgings."""
    retraction_reason: Mapped[str | None] = mapped_column(Words)


class Verdict(Base):
    """One judge's answer on one criterion: met, not met, or unscored with a reason."""

    __tablename__ = "verdict"
    __table_args__ = (
        UniqueConstraint("judging_id", "reply_id", "criterion_id", "vote"),
        CheckConstraint("(met IS NULL) = (unscored_reason IS NOT NULL)", name="three_values"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    judging_id: Mapped[str] = mapped_column(ForeignKey("judging.id", ondelete="CASCADE"))
    reply_id: Mapped[int] = mapped_column(ForeignKey("reply.id", ondelete="CASCADE"), index=True)
    criterion_id: Mapped[int] = mapped_column(ForeignKey("criterion.id"))
    vote: Mapped[int] = mapped_column(default=0)
    met: Mapped[bool | None]
    unscored_reason: Mapped[str | None]
    explanation: Mapped[str | None] = mapped_column(Words)
    created_at: Mapped[datetime] = mapped_column(default=now)


class Outcome(Base):
    """How one conversation came out under an ended judging, written when it ends; lists and comparisons read this."""

    __tablename__ = "outcome"
    # A list of a judging's conversations that passed or failed is read in order from this alone.
    __table_args__ = (Index("ix_outcome_list", "judging_id", "position", "passed", "conversation_id"),)

    judging_id: Mapped[str] = mapped_column(ForeignKey("judging.id", ondelete="CASCADE"), primary_key=True)
    conversation_id: Mapped[int] = mapped_column(ForeignKey("conversation.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int]
    """The conversation's, in its dataset."""
    passed: Mapped[bool | None]
    """Every criterion met in every reply; null while some are unscored and none is known not to be met."""
    pass_rate: Mapped[float]
    """The share of its replies with every criterion met."""
    verdicts: Mapped[str] = mapped_column(Text)
    """For each reply a sign for each criterion, in their order: `1` met, `0` not met, `?` unscored; `/` between."""


class Arm(Base):
    """One method in a comparison of an efficiency run."""

    __tablename__ = "arm"
    __table_args__ = (UniqueConstraint("run_id", "name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(Name)
    """As it is written: the method with its settings, and what was fitted for it."""
    method: Mapped[str] = mapped_column(Name)
    settings: Mapped[dict[str, Any]]
    fitted: Mapped[str | None] = mapped_column(Name)
    """Where that which was fitted lies; null where nothing is."""
    position: Mapped[int] = mapped_column(default=0, server_default="0")
    """Its place among the run's arms, from 0."""
    baseline: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether the run's other arms are compared with this one."""
    official: Mapped[bool] = mapped_column(default=False, server_default=false())
    unofficial_reasons: Mapped[list[str] | None]
    ended_at: Mapped[datetime | None]
    """When its scores were computed from all of its trials; null while some are missing."""


class Diagnosis(Base):
    """What an arm does in one layer of the model, over all of its trials; heat maps are drawn of these rows."""

    __tablename__ = "diagnosis"
    __table_args__ = (UniqueConstraint("arm_id", "kind", "layer", "setting"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    arm_id: Mapped[int] = mapped_column(ForeignKey("arm.id", ondelete="CASCADE"))
    kind: Mapped[str]
    """What the figure is: `kept`, `ratio`, `threshold`, …"""
    layer: Mapped[str] = mapped_column(Name)
    setting: Mapped[str] = mapped_column(Name)
    """What else it depends on, as the criterion of a threshold; empty where it is nothing."""
    value: Mapped[float]
    n: Mapped[int]
    """Observations that it is the mean of; 0 of what was set."""


class Trial(Base):
    """One timed generation of one arm."""

    __tablename__ = "trial"
    __table_args__ = (UniqueConstraint("arm_id", "prompt", "repetition"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    arm_id: Mapped[int] = mapped_column(ForeignKey("arm.id", ondelete="CASCADE"))
    prompt: Mapped[str]
    repetition: Mapped[int]
    ttft_s: Mapped[float | None]
    total_s: Mapped[float | None]
    output_tokens: Mapped[int | None]
    measurements: Mapped[dict[str, Any]]
    """`trial`: all that the stopwatch saw; `answer` and `quality`: what it said, and how good it is from 0 to 1;
    `diagnoses`: what it did in each layer, as kind, layer, setting, value and n."""
    unscored_reason: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=now)


class Attempt(Base):
    """One call to a model or a judge, successful or not; tokens, cost and time are sums over these."""

    __tablename__ = "attempt"
    # All that the board and the status sum up over a run's many calls: they read this and not the calls.
    __table_args__ = (
        Index(
            "ix_attempt_accounting", "run_id", "judging_id", "stage", "error", "cached", "input_tokens",
            "output_tokens", "input_audio_tokens", "audio_seconds", "cost_usd",
        ),
        Index("ix_attempt_conversation", "conversation_id", "run_id"),
    )  # fmt: skip

    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"))
    judging_id: Mapped[str | None] = mapped_column(ForeignKey("judging.id", ondelete="CASCADE"))
    conversation_id: Mapped[int | None] = mapped_column(ForeignKey("conversation.id"))
    criterion_id: Mapped[int | None] = mapped_column(ForeignKey("criterion.id"))
    stage: Mapped[str] = mapped_column(String(16))
    """`hear`, `generate`, `transcribe` or `judge`."""
    seconds: Mapped[float]
    input_tokens: Mapped[int | None]
    output_tokens: Mapped[int | None]
    input_audio_tokens: Mapped[int | None]
    """Of the input tokens, those that the server counts as audio (or a local model's audio frames)."""
    audio_seconds: Mapped[float | None]
    """Seconds of recordings that the call sent."""
    cached: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Answered from the response cache: nothing was sent."""
    cost_usd: Mapped[float | None]
    error: Mapped[str | None]
    """The reason code of a failed call; null for one that succeeded."""
    detail: Mapped[str | None] = mapped_column(Message)
    created_at: Mapped[datetime] = mapped_column(default=now)


class Score(Base):
    """One summary figure of a judging or an arm, computed from recorded rows when it ends."""

    __tablename__ = "score"
    __table_args__ = (
        UniqueConstraint("judging_id", "metric", "slice", name="uq_score_judging"),
        UniqueConstraint("arm_id", "metric", "slice", name="uq_score_arm"),
        CheckConstraint("(judging_id IS NULL) <> (arm_id IS NULL)", name="one_owner"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    judging_id: Mapped[str | None] = mapped_column(ForeignKey("judging.id", ondelete="CASCADE"))
    arm_id: Mapped[int | None] = mapped_column(ForeignKey("arm.id", ondelete="CASCADE"))
    metric: Mapped[str]
    slice: Mapped[str] = mapped_column(default="")
    """Empty for the whole, else the axis."""
    value: Mapped[float | None]
    low: Mapped[float | None]
    high: Mapped[float | None]
    minimum: Mapped[float | None]
    """Where the value would lie if everything unscored went against the model."""
    maximum: Mapped[float | None]
    """Where it would lie if everything unscored went for it."""
    count: Mapped[int | None]
    """The numerator: conversations passed, criteria met or scored."""
    n: Mapped[int]
    """What was planned, scored or not."""
    unscored: Mapped[int]


ENDED = ("complete", "incomplete", "failed", "cancelled")
"""What a submission's status is when it has ended."""


class Submission(Base):
    """A request to have a run executed and judged, here or by a worker."""

    __tablename__ = "submission"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"), index=True)
    judging_id: Mapped[str | None] = mapped_column(ForeignKey("judging.id", ondelete="CASCADE"))
    spec: Mapped[dict[str, Any]]
    queue: Mapped[str | None]
    """The queue that workers take it from; null when the submitting process executes it itself."""
    status: Mapped[str] = mapped_column(String(16), index=True)
    """`queued`, `running`, `complete`, `incomplete`, `failed` or `cancelled`."""
    message: Mapped[str | None] = mapped_column(Message)
    """How it ended, in a sentence."""
    worker_id: Mapped[str | None]
    """Who began the last part of it."""
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    opened_at: Mapped[datetime | None]
    """When recordings were found to be heard and the first item had gone well, once for all parts."""
    submitter: Mapped[str] = mapped_column(default="", server_default=text("''"))
    """Whose turn it is when it is taken from a queue: submitters take turns."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]


class RunLabel(Base):
    """A word that somebody gave a run, to find it by."""

    __tablename__ = "run_label"

    run_id: Mapped[str] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"), primary_key=True)
    label: Mapped[str] = mapped_column(String(40), primary_key=True)


class Worker(Base):
    """A process that executes runs, and its last sign of life."""

    __tablename__ = "worker"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    host: Mapped[str]
    """Host name, boot and process namespace: where its process number means something."""
    pid: Mapped[int]
    process_started: Mapped[float]
    """Start time of the process, so that a reused process number is not taken for it."""
    machine: Mapped[str] = mapped_column(String(64), default="", server_default=text("''"))
    """What is shared with others when something is measured there, containers or not."""
    queues: Mapped[list[str]]
    offers: Mapped[dict[str, Any] | None]
    """What it has that runs may need."""
    drain_asked_at: Mapped[datetime | None]
    """When it was asked to end once what it executes has ended."""
    lease_seconds: Mapped[float]
    started_at: Mapped[datetime] = mapped_column(default=now)
    heartbeat_at: Mapped[datetime] = mapped_column(default=now)
    stopped_at: Mapped[datetime | None]


class Event(Base):
    """One line of a run's log."""

    __tablename__ = "event"
    __table_args__ = (Index("ix_event_run_id_id", "run_id", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[str | None] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"))
    submission_id: Mapped[str | None] = mapped_column(ForeignKey("submission.id", ondelete="CASCADE"))
    worker_id: Mapped[str | None]
    level: Mapped[str] = mapped_column(String(16))
    message: Mapped[str] = mapped_column(Message)
    created_at: Mapped[datetime] = mapped_column(default=now)


class ApiToken(Base):
    """A token that opens the API; only its hash is kept."""

    __tablename__ = "api_token"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    """By which it is listed and revoked."""
    owner: Mapped[str | None] = mapped_column(Name)
    """Whose it is: what is submitted with it is theirs; null of the operator's own."""
    token_sha256: Mapped[str] = mapped_column(String(64), unique=True)
    scopes: Mapped[list[str]]
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
