"""Hearing and speaking gaps: which runs belong together, and which do not."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from support.judged import Outcomes, add_dataset, add_judging
from vivace.analysis.gaps import gaps
from vivace.store.columns import now
from vivace.store.database import Database
from vivace.store.tables import Model, Reply, Run
from vivace.tracks.dialogue.judging.results import score_judging
from vivace.tracks.dialogue.summaries.gaps import renew_gaps


def passing(count: int, of: int = 12) -> Outcomes:
    """So many conversations pass."""
    return [[[place < count, True]] for place in range(of)]


def test_a_hearing_gap_is_audio_less_transcript_on_the_same_conversations(store: Database) -> None:
    with store.write() as session:
        dataset = add_dataset(session, 12)
        text = add_judging(session, dataset, passing(9), input_form="transcript")
        audio = add_judging(session, dataset, passing(5))
    apr, ars = gaps(store)
    assert (apr.kind, apr.metric, apr.text.judging, apr.audio.judging) == ("hearing", "apr", text, audio)
    assert (apr.difference.a, apr.difference.b) == (9 / 12, 5 / 12)
    assert (apr.difference.lost, apr.difference.p_value) == (4, 2 / 2**4)
    assert apr.p_adjusted is not None and apr.p_adjusted >= 2 / 2**4
    assert ars.difference.value < 0
    assert apr.as_json()["form_text"] == "transcript"


def test_a_speaking_gap_is_of_models_that_differ_only_in_how_they_answer(store: Database) -> None:
    spoken = {"output": "audio", "voice": "alloy", "temperature": 0.5}
    with store.write() as session:
        dataset = add_dataset(session, 12)
        add_judging(session, dataset, passing(9), parameters={"output": "text", "temperature": 0.5})
        add_judging(session, dataset, passing(6), parameters=spoken, output_form="audio")
        add_judging(session, dataset, passing(7), parameters={**spoken, "voice": "verse"}, output_form="audio")
        add_judging(session, dataset, passing(3), parameters={**spoken, "temperature": 1.0}, output_form="audio")
    found = [gap for gap in gaps(store) if gap.metric == "apr"]
    assert {gap.kind for gap in found} == {"speaking"}
    assert sorted(round(12 * gap.difference.b) for gap in found) == [6, 7], "each voice, and no other temperature"


def test_only_the_same_model_data_judge_and_standing_runs_belong_together(store: Database) -> None:
    with store.write() as session:
        dataset, other = add_dataset(session, 12), add_dataset(session, 12, name="other")
        add_judging(session, dataset, passing(9), input_form="transcript")
        add_judging(session, dataset, passing(9), name="another")
        add_judging(session, other, passing(9))
        add_judging(session, dataset, passing(9), judge="strict")
        add_judging(session, dataset, passing(9), method="teal:12345678")
        retracted = add_judging(session, dataset, passing(9))
        session.get_one(Run, retracted.partition(".")[0]).retracted_at = now()
    assert gaps(store) == []


def test_the_newest_of_several_runs_stands_for_all(store: Database) -> None:
    with store.write() as session:
        dataset = add_dataset(session, 12)
        add_judging(session, dataset, passing(2), input_form="transcript")
        newest = add_judging(session, dataset, passing(9), input_form="transcript")
        add_judging(session, dataset, passing(6))
    apr, _ = gaps(store)
    assert apr.text.judging == newest


def test_recorded_replies_have_no_gap(store: Database) -> None:
    with store.write() as session:
        dataset = add_dataset(session, 12)
        for form in ("transcript", "audio-16k"):
            judging = add_judging(session, dataset, passing(9), input_form=form)
        run = session.get_one(Run, judging.partition(".")[0])
        session.get_one(Model, run.model_id).recorded = True
    assert gaps(store) == []


def heard(session: Session, judging: str, *texts: str) -> None:
    """Have the ear of a run hear these texts of each conversation; "Hello." is said in every turn."""
    turns = [
        {"number": number, "text": text, "unscored": None, "detail": None, "seconds": 1.0, "cost_usd": 0.0,
         "errors": int(text != "Hello."), "words": 1}
        for number, text in enumerate(texts, start=1)
    ]  # fmt: skip
    for reply in session.scalars(select(Reply).where(Reply.run_id == judging.partition(".")[0])):
        reply.heard = turns
    score_judging(session, judging)


def cascade(session: Session, dataset: int, outcomes: Outcomes, ear: str = "one", **run: str) -> str:
    """A judged run of a cascade whose model is `system`."""
    judging = add_judging(session, dataset, outcomes, name=f"{ear} ear", parameters={"ear": ear}, **run)
    model = session.get_one(Model, session.get_one(Run, judging.partition(".")[0]).model_id)
    model.target = "cascade:litellm:system"
    renew_gaps(session)
    return judging


def test_an_ears_gap_is_what_it_lost_of_the_models_score_with_transcripts(store: Database) -> None:
    with store.write() as session:
        dataset = add_dataset(session, 12)
        alone = add_judging(session, dataset, passing(9), input_form="transcript")
        audio = cascade(session, dataset, passing(5))
        other = cascade(session, dataset, passing(9), ear="two")
        heard(session, audio, "Hello.", "Yellow.")
        heard(session, other, "Hello.", "Hello.")
        add_judging(session, dataset, passing(1), parameters={"temperature": 1.0}, input_form="transcript")
    found = [gap for gap in gaps(store) if gap.metric == "ars"]
    assert {(gap.kind, gap.text.judging, gap.audio.judging) for gap in found} == {
        ("ear", alone, audio), ("ear", alone, other),
    }  # fmt: skip
    lost = next(gap.ear for gap in found if gap.audio.judging == audio)
    assert lost is not None and lost.word_error_rate == 0.5
    assert [(one.conversation, one.criterion) for one in lost.fell] == [
        (f"set{place:03d}", 0) for place in range(5, 9)
    ]
    assert [vars(words) for words in lost.fell[0].misheard] == [{"turn": 2, "said": "hello", "heard": "yellow"}]
    nothing = next(gap.ear for gap in found if gap.audio.judging == other)
    assert nothing is not None and (nothing.word_error_rate, nothing.fell) == (0.0, ())


def test_a_cascade_that_was_sent_transcripts_is_its_own_control(store: Database) -> None:
    with store.write() as session:
        dataset = add_dataset(session, 12)
        control = cascade(session, dataset, passing(9), input_form="transcript")
        audio = cascade(session, dataset, passing(5))
    assert [(gap.kind, gap.text.judging, gap.audio.judging) for gap in gaps(store)] == [("ear", control, audio)] * 2
