"""Reproducing a run of the hub's data from what the store holds of it: nothing is fetched to say what has changed."""

from __future__ import annotations

import itertools
import shlex
from datetime import timedelta
from typing import Any

import pytest

from support.judged import add_dataset, add_judging
from vivace.analysis.reproduction import reproduction
from vivace.errors import UsageError
from vivace.machine.manifest import fingerprint, hardware, manifest
from vivace.spec import parse_spec
from vivace.store.database import Database
from vivace.store.tables import Dataset, Hardware, Judge, Judging, Run, Submission

COMMIT = "90ea11040fd05f41cf433b90f97ada45d847c500"
SPEC = {
    "track": "audio-multichallenge",
    "data": "ScaleAI/audiomc",
    "model": "litellm:openai/gpt-audio",
    "judge": "checks",
    "model-arg": {"seed": 7, "reasoning_effort": "low", "stop": "1"},
    "items": ["one", "two words"],
    "hear": False,
    "max-cost": 2.5,
}


@pytest.fixture
def judging(store: Database) -> str:
    """A judging of a run that was submitted with `SPEC`, made on the hub's data as of `COMMIT`."""
    with store.write() as session:
        dataset = add_dataset(session, 2, name="ScaleAI/audiomc")
        found = add_judging(session, dataset, [[[True, True]]] * 2)
        session.get_one(Dataset, dataset).revision = COMMIT
        run = session.get_one(Run, session.get_one(Judging, found).run_id)
        run.manifest = manifest()
        machine = Hardware(fingerprint=fingerprint(hardware()), details=hardware())
        session.add(machine)
        session.flush()
        run.hardware_id = machine.id
        session.add(
            Submission(
                id="s1", run_id=run.id, judging_id=found, spec=parse_spec(SPEC).as_json(), status="complete"
            )
        )  # fmt: skip
    return found


def test_hub_data_are_fetched_and_named_at_their_revision(store: Database, judging: str) -> None:
    commands = reproduction(store, judging).commands
    assert f"vivace data fetch ScaleAI/audiomc@{COMMIT}" in commands
    words = shlex.split(commands[-1])
    assert words[:3] == ["vivace", "run", "audio-multichallenge"]
    pairs = list(itertools.pairwise(words))
    for pair in (
        ("--data", f"ScaleAI/audiomc@{COMMIT}"),
        ("--model-arg", "seed=7"),
        ("--model-arg", "reasoning_effort=low"),
        ("--model-arg", 'stop="1"'),
        ("--items", "one,two words"),
        ("--max-cost", "2.5"),
    ):
        assert pair in pairs
    assert "--no-hear" in words


def test_a_run_a_judging_and_a_submission_lead_to_the_same(store: Database, judging: str) -> None:
    run = judging.partition(".")[0]
    assert len({tuple(reproduction(store, one).commands) for one in (judging, run, "s1")}) == 1


def test_each_difference_between_then_and_now_is_listed(store: Database, judging: str) -> None:
    """The judge in the store is not `checks`, which the spec opens now: that is the one difference at first."""
    assert [change.what for change in reproduction(store, judging).changes] == ["judge"]
    then: dict[str, Any] = {
        **manifest(),
        "python": "3.9.1",
        "packages": {**manifest()["packages"], "numpy": "1.0", "forgotten": "2.0"},
        "code": {"commit": "abc", "dirty": False},
    }
    with store.write() as session:
        run = session.get_one(Run, judging.partition(".")[0])
        run.manifest = then
        session.get_one(Hardware, run.hardware_id).details = {**hardware(), "cores": 4096}
    found = reproduction(store, judging)
    changes = {change.what: (change.then, change.now) for change in found.changes}
    assert {"python", "package numpy", "package forgotten", "code", "hardware: cores", "judge"} <= set(changes)
    assert changes["hardware: cores"] == ("4096", str(hardware()["cores"]))
    assert changes["package forgotten"] == ("2.0", "none")
    assert "git checkout abc" in found.commands
    assert any(line.startswith("pip install --editable . ") and "numpy==1.0" in line for line in found.commands)


def test_changes_that_were_not_committed_are_named_in_the_script(store: Database, judging: str) -> None:
    with store.write() as session:
        run = session.get_one(Run, judging.partition(".")[0])
        run.manifest = {**manifest(), "code": {"commit": "abc", "dirty": True}}
    assert any(line.startswith("# ") and "not committed" in line for line in reproduction(store, judging).commands)


def test_a_judging_is_reproduced_with_its_own_judge(store: Database, judging: str) -> None:
    """The same run was judged by another judge later, by the same verb."""
    with store.write() as session:
        first = session.get_one(Judging, judging)
        other = Judge(fingerprint="other", target="litellm:x", name="x", parameters={}, parser_version="1")
        session.add(other)
        session.flush()
        session.add(Judging(id="run0.other", run_id="run0", judge_id=other.id, status="ended"))
        session.flush()
        spec = parse_spec({**SPEC, "judge": "litellm:openai/another"}).as_json()
        made = session.get_one(Submission, "s1").created_at + timedelta(hours=1)
        session.add(
            Submission(id="s2", run_id="run0", judging_id="run0.other", spec=spec, status="complete", created_at=made)
        )
        session.add(Judging(id="run0.lost", run_id="run0", judge_id=first.judge_id, votes=3, status="ended"))
    judges = {}
    for identifier in (judging, "s1", "run0.other", "s2", "run0"):
        words = shlex.split(reproduction(store, identifier).commands[-1])
        judges[identifier] = words[words.index("--judge") + 1]
    assert judges == {
        judging: "checks", "s1": "checks", "run0.other": "litellm:openai/another", "s2": "litellm:openai/another",
        "run0": "litellm:openai/another",
    }  # fmt: skip
    assert reproduction(store, judging).judging == judging
    with pytest.raises(UsageError, match=r"Judging run0\.lost has no submission on record"):
        reproduction(store, "run0.lost")
