"""A recorded run of an efficiency track with known figures."""

from __future__ import annotations

import math
from typing import Any

from vivace.store import tables
from vivace.store.database import Database
from vivace_methods.timing.trials import Trial

PROMPTS = [f"sums/{number}" for number in range(20)]
REPEATS = 2
FLOOR = {"read_bytes_per_s": 1e9, "flops_per_s": {"float32": 1e10}, "launch_s": 1e-6}


def recorded(
    arm: tables.Arm, prompt: int, repetition: int, *, seconds: float, quality: float, moved: float, place: int
) -> tables.Trial:
    """A trial of ten tokens, the first of them after a tenth of its time."""
    emitted = tuple(seconds * (place + 1) / 10 for place in range(10))
    trial = Trial(
        arm.name, PROMPTS[prompt], repetition, place, "one session", tokens=tuple(range(10)), emitted_s=emitted,
        step_tokens=(1,) * 10, total_s=seconds, most_tokens=10, figures={"kept": 0.5, "name": "x", "parts": [1, 2]},
    )  # fmt: skip
    values = {
        "trial": trial.as_json(),
        "quality": quality,
        "bytes": moved,
        "flops": 2 * moved,
        "floor_s": moved / 1e6,
        "slice": f"{1024 * (1 + prompt % 2):,} tokens, {50 * (prompt % 3)}% deep",
    }
    if not repetition:
        values |= {"nats": 5.0 / (1 + prompt % 2), "nats_tokens": 10}
        values |= {} if arm.baseline else {"kl": 0.5, "kl_tokens": 10}
    return tables.Trial(
        arm_id=arm.id, prompt=PROMPTS[prompt], repetition=repetition, total_s=seconds, ttft_s=seconds / 10,
        output_tokens=10, measurements=values,
    )  # fmt: skip


def run_of(database: Database, adapter: str = "zoo", **run: Any) -> str:
    """A run of a baseline and an arm that takes half the time and the bytes, and fails at every fifth prompt."""
    with database.write() as session:
        model = tables.Model(fingerprint="m", target="zoo:moe", adapter=adapter, name="moe", parameters={})
        dataset = tables.Dataset(fingerprint="d", name="sums", revision="r", has_audio=False)
        machine = tables.Hardware(fingerprint="h", details={"device": "cpu", "processor": "Some CPU", "threads": 2})
        session.add_all([model, dataset, machine])
        session.flush()
        values = {"measured": {"floor": FLOOR, "sessions": [{"session": "s", "findings": []}]}}
        session.add(
            tables.Run(
                **{
                    "id": "r1",
                    "identity": "r1",
                    "ordinal": 0,
                    "track": "sparsity",
                    "dataset_id": dataset.id,
                    "model_id": model.id,
                    "hardware_id": machine.id,
                    "method": "dense",
                    "input_form": "text",
                    "repeats": REPEATS,
                    "items": PROMPTS,
                    "limited": True,
                    "manifest": {},
                    **values,
                    **run,
                }
            )
        )
        session.flush()
        arms = [
            tables.Arm(
                run_id="r1", name=name, method=name, settings={}, position=place, baseline=not place,
            )
            for place, name in enumerate(("dense", "sparse"))
        ]  # fmt: skip
        session.add_all(arms)
        session.flush()
        place = 0
        for repetition in range(REPEATS):
            for prompt in range(len(PROMPTS)):
                noise = 1 + 0.5 * math.sin(prompt)
                for arm, share in zip(arms, (1.0, 0.5), strict=True):
                    right = float(arm.baseline or prompt % 5 > 0)
                    session.add(
                        recorded(arm, prompt, repetition, seconds=share * noise, quality=right, moved=1000 * share,
                                 place=place)
                    )  # fmt: skip
                    place += 1
    return "r1"
