"""The tables of the results database, each with the natural key that makes repeated work harmless."""

from vivace.store.tables.access import ApiToken, Upload
from vivace.store.tables.arms import Arm, Diagnosis, Trial
from vivace.store.tables.base import Base
from vivace.store.tables.conversations import Conversation, Criterion, Turn
from vivace.store.tables.foreign import ForeignOutcome, ForeignResult
from vivace.store.tables.judgings import HumanLabel, Judging, Outcome, Score, Verdict
from vivace.store.tables.regressions import NIGHT, Alert, Delivery, Night, Regression, Schedule, is_night
from vivace.store.tables.runs import RUN_IN_SHORT, Attempt, Event, Reply, Run, RunLabel
from vivace.store.tables.subjects import Dataset, Hardware, Judge, Model
from vivace.store.tables.summaries import Breakdown, Gap
from vivace.store.tables.work import ENDED, Machine, Reservation, Shard, Submission, Worker

__all__ = [
    "ENDED",
    "NIGHT",
    "RUN_IN_SHORT",
    "Alert",
    "ApiToken",
    "Arm",
    "Attempt",
    "Base",
    "Breakdown",
    "Conversation",
    "Criterion",
    "Dataset",
    "Delivery",
    "Diagnosis",
    "Event",
    "ForeignOutcome",
    "ForeignResult",
    "Gap",
    "Hardware",
    "HumanLabel",
    "Judge",
    "Judging",
    "Machine",
    "Model",
    "Night",
    "Outcome",
    "Regression",
    "Reply",
    "Reservation",
    "Run",
    "RunLabel",
    "Schedule",
    "Score",
    "Shard",
    "Submission",
    "Trial",
    "Turn",
    "Upload",
    "Verdict",
    "Worker",
    "is_night",
]
