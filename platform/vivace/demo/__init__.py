"""The demo set: sixteen voiced conversations and three replayed systems, to try Vivace without a download; and what
is run beside them where two real models that packages carry are at hand.

The conversations have the columns of the public data set `ScaleAI/audiomc` and a machine check beside
every criterion, so that the whole way from a reply to the leaderboard runs offline. The replies were
written by hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_HERE = Path(__file__).parent

DATA: Path = _HERE / "conversations.parquet"
"""The sixteen conversations, made by `python -m vivace.demo.build`."""


@dataclass(frozen=True)
class System:
    """One replayed system: its name, its replies (JSON Lines of `id` and `response`) and its card (YAML)."""

    name: str
    replies: Path
    card: Path


SYSTEMS: tuple[System, ...] = tuple(
    System(name, _HERE / "systems" / f"{name}.jsonl", _HERE / "systems" / f"{name}.card.yaml")
    for name in ("written-attentive", "written-hurried", "written-forgetful")
)
"""The replayed systems, the most careful one first."""

EFFICIENCY: Path = _HERE / "efficiency.yaml"
"""A suite of small sweeps on the zoo, one for each efficiency track."""

CASCADE: Path = _HERE / "cascade.yaml"
"""The live system: two real models, one that hears and one that answers."""
CASCADE_CARD: Path = _HERE / "systems" / "live-cascade.card.yaml"
"""What is known of both: who made them, how large they are, and that their weights are open."""
REAL_EFFICIENCY: Path = _HERE / "smollm2.yaml"
"""A suite on the one that answers."""
REAL_MODELS = ("smollm2-135m", "whisper-base")
"""Both, by their names after `packaged:`."""
