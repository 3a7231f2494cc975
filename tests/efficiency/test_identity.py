"""What makes a run the same one is the content of all it reads: not where that lies, and not what it is called."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vivace.errors import UsageError
from vivace.files import content_hash
from vivace.files.content_hash import file_sha256, folder_sha256, remember_in
from vivace.models.adapters.replay import Replay
from vivace.settings import Settings
from vivace.spec import EfficiencySpec, parse_spec
from vivace.store.artifacts import Artifacts
from vivace.store.database import Database
from vivace.store.migrate import open_for_writing
from vivace.store.tables import Arm, Hardware, Model, Run, Trial
from vivace.tracks.dialogue.judging.judges import open_judge
from vivace.tracks.efficiency.machine import MachineSetup
from vivace.tracks.efficiency.track import EfficiencyTrack


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def database(home: Path) -> Any:
    opened = open_for_writing(Settings(home=home))
    yield opened
    opened.close()


def registered(database: Database, home: Path, **spec: Any) -> str:
    """The run that a request turns out to be."""
    given = {"track": "sparsity", "model": "random:llama", "tasks": ["tokens(length=8,vocabulary=99)"], **spec}
    parsed = parse_spec({**given, "device": "cpu", "threads": 1, "limit": 1})
    assert isinstance(parsed, EfficiencySpec)
    run = EfficiencyTrack(parsed.track).prepare(parsed, home)
    return run.register(database, Artifacts(home / "artifacts")).run_id


def recipe(place: Path, content: str) -> dict[str, Any]:
    place.mkdir(parents=True, exist_ok=True)
    (place / "recipe.json").write_text(content)
    (place / "factors.safetensors").write_bytes(b"factors")
    return {"arms": [f"teal(sparsity=0.4):{place}"], "baseline": "dense"}


def baseline(place: Path, content: str) -> dict[str, Any]:
    return {**recipe(place, content), "baseline": f"teal(sparsity=0.4):{place}", "arms": ["dense"]}


def drafter(place: Path, content: str) -> dict[str, Any]:
    place.mkdir(parents=True, exist_ok=True)
    (place / "config.json").write_text("{}")
    (place / "model.safetensors").write_text(content)
    return {"track": "speculation", "arms": [f"eagle-3:{place}"], "baseline": "autoregressive"}


def calibration(place: Path, content: str) -> dict[str, Any]:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(content)
    return {"arms": ["teal(sparsity=0.4)"], "calibration": str(place), "baseline": "dense"}


def questions(place: Path, content: str) -> dict[str, Any]:
    place.mkdir(parents=True, exist_ok=True)
    (place / "questions.jsonl").write_text(json.dumps({"question": content, "answer": "#### 2"}) + "\n")
    return {"tasks": [f"gsm8k(path={place})"], "arms": ["dense(cache=static)"], "baseline": "dense"}


def checkpoint(place: Path, content: str) -> dict[str, Any]:
    place.mkdir(parents=True, exist_ok=True)
    (place / "config.json").write_text("{}")
    (place / "model.safetensors").write_text(content)
    return {"model": f"local:{place}", "arms": ["dense(cache=static)"], "baseline": "dense"}


@pytest.mark.parametrize("made", [recipe, baseline, drafter, calibration, questions, checkpoint])
def test_the_same_content_elsewhere_is_the_same_run_and_other_content_in_its_place_is_not(
    made: Callable[[Path, str], dict[str, Any]], database: Database, home: Path, tmp_path: Path
) -> None:
    first = registered(database, home, **made(tmp_path / "first", "one"))
    elsewhere = registered(database, home, **made(tmp_path / "other" / "second", "one"))
    assert elsewhere == first
    assert registered(database, home, **made(tmp_path / "first", "two")) != first
    with database.read() as session:
        run = session.get_one(Run, first)
        arms = session.query(Arm).filter_by(run_id=first).count()
        assert arms == 2, "found elsewhere, an arm is still the one that was recorded"
        assert len(run.items) == 1


def test_what_is_not_read_makes_no_other_run(database: Database, home: Path, tmp_path: Path) -> None:
    spec = recipe(tmp_path / "recipe", "one")
    first = registered(database, home, **spec)
    (tmp_path / "recipe" / "README.md").write_text("how it was made")
    assert registered(database, home, **spec, calibration="stories") == first, "nothing is fitted on it"


def test_a_run_that_is_sent_is_measured_by_whichever_machine_takes_it_and_by_no_second_one(
    database: Database, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = parse_spec(
        {"track": "sparsity", "model": "random:llama", "tasks": ["tokens(length=8,vocabulary=99)"], "limit": 1,
         "device": "cuda", "arms": ["dense"]}
    )  # fmt: skip
    assert isinstance(spec, EfficiencySpec)
    assert spec.needed == ["gpu"], "whoever takes it must have what it asks for"
    assert spec.model_copy(update={"needs": ["gpu=H200"]}).needed == ["gpu=H200"]

    def register(machine: str | None, run_id: str | None = None) -> Run:
        if machine is not None:
            made = MachineSetup("cuda", "bfloat16", 1, {"gpu": machine})
            monkeypatch.setattr("vivace.tracks.efficiency.run.machine_for", lambda *_: made)
        run = EfficiencyTrack("sparsity").prepare(spec, home)
        elsewhere = machine is None
        found = run.register(database, Artifacts(home / "artifacts"), run_id=run_id, elsewhere=elsewhere).run_id
        with database.read() as session:
            return session.get_one(Run, found)

    sent = register(None)  # by somebody who has no such device
    assert sent.hardware_id is None
    taken = register("H200", sent.id)
    assert (taken.id, register(None).id) == (sent.id, sent.id)
    with database.write() as session:
        assert session.get_one(Model, taken.model_id).parameters["dtype"] == "bfloat16"
        assert session.get_one(Hardware, taken.hardware_id).details == {"gpu": "H200"}
    other = register("B200", sent.id)
    assert other.hardware_id != taken.hardware_id, "nothing was measured yet"
    with database.write() as session:
        arm = session.query(Arm).filter_by(run_id=sent.id).first()
        assert arm is not None
        session.add(Trial(arm_id=arm.id, prompt="p", repetition=0, measurements={}))
    assert register("B200", sent.id).hardware_id == other.hardware_id
    with pytest.raises(UsageError, match="begun on another machine"):
        register("H200", sent.id)
    assert register("H200").id != sent.id, "what is measured at once is known by its machine"


def test_a_recorded_reply_is_itself_under_any_file_name(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / f"{name}.jsonl").write_text('{"id": "a", "response": "yes"}\n')
    one, other = (Replay(tmp_path / f"{name}.jsonl").identity for name in ("one", "other"))
    assert one.fingerprint == other.fingerprint and one.name != other.name
    named = {Replay(tmp_path / "one.jsonl", name).identity.fingerprint for name in ("mine", "yours")}
    assert len({one.fingerprint, *named}) == 3, "a name that somebody gives on purpose counts"


def test_a_judge_is_its_prompt_under_any_file_name(tmp_path: Path) -> None:
    cards = []
    for name, text in (
        ("a.txt", "{conversation} {rubric}"),
        ("b.txt", "{conversation} {rubric}"),
        ("a.txt", "{rubric} {conversation}"),
    ):
        (tmp_path / name).write_text(text)
        spec = parse_spec(
            {"track": "audio-multichallenge", "data": "demo", "model": "replay:x", "judge": "litellm:openai/x",
             "judge-prompt": str(tmp_path / name)}
        )  # fmt: skip
        cards.append(open_judge(spec, None).card.fingerprint)  # type: ignore[arg-type]
    assert cards[0] == cards[1] != cards[2]


def test_hashes_of_large_files_are_remembered_until_they_are_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content_hash, "LARGE", 10)
    monkeypatch.setattr(content_hash, "_known", {})
    remember_in(tmp_path)
    weights = tmp_path / "weights"
    weights.write_bytes(b"x" * 20)
    first = file_sha256(weights)
    read: list[Path] = []
    computed = content_hash._computed
    monkeypatch.setattr(content_hash, "_computed", lambda path: read.append(path) or computed(path))
    monkeypatch.setattr(content_hash, "_known", {})
    remember_in(tmp_path)
    assert file_sha256(weights) == first and not read, "another process knows it, too"
    weights.write_bytes(b"x" * 19 + b"y")
    assert file_sha256(weights) != first and read
    remember_in(tmp_path / "nowhere")
    weights.write_bytes(b"z" * 20)
    assert file_sha256(weights) and not (tmp_path / "nowhere").exists()
    monkeypatch.setattr(content_hash, "_home", None)


def test_a_folder_is_its_files_with_their_names(tmp_path: Path) -> None:
    for folder, name, content in (("a", "f", "1"), ("b", "f", "1"), ("c", "g", "1"), ("d", "f", "2")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(content)
    hashes = [folder_sha256(tmp_path / folder) for folder in "abcd"]
    assert hashes[0] == hashes[1] and len(set(hashes)) == 3
    assert folder_sha256(tmp_path / "a", ("g",)) == folder_sha256(tmp_path / "d", ("g",))
