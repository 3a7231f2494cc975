"""The track `audio-multichallenge`: each conversation gets one free reply, each rubric item one verdict."""

from __future__ import annotations

from pathlib import Path

from vivace.audio.digits import VOICED, read_digits
from vivace.audio.voice import cost_of_speaking
from vivace.errors import UsageError
from vivace.models.adapters.replay import recorded_replies
from vivace.models.base import HearsFirst, RecordedSystem, SpokenOutput
from vivace.models.client.calls import ChatOptions
from vivace.models.client.providers.prices import parse_price
from vivace.models.registry import open_system
from vivace.spec import DialogueSpec, RunSpec, is_rejudging, read_card
from vivace.tracks.base import Import
from vivace.tracks.dialogue.data.readers import files_beside, open_conversations
from vivace.tracks.dialogue.estimate import Prices, has_price
from vivace.tracks.dialogue.judging.judges import open_judge
from vivace.tracks.dialogue.judging.rejudge import Rejudging
from vivace.tracks.dialogue.registration import TRACK
from vivace.tracks.dialogue.run import DialogueRun


class DialogueTrack:
    """Audio MultiChallenge (arXiv 2512.14865)."""

    name = TRACK
    takes_machine_alone = False

    def prepare(self, spec: RunSpec, home: Path) -> DialogueRun:
        """Read the conversations, and open the system under test and the judge."""
        assert isinstance(spec, DialogueSpec)
        require_prices(spec)
        if is_rejudging(spec.model):
            return Rejudging(spec)
        conversations = open_conversations(spec.data)
        chosen = conversations.chosen(spec.items, spec.limit)
        form = spec.audio if conversations.has_audio else "transcript"
        options = ChatOptions(
            spec.api_base,
            spec.timeout,
            spec.retries,
            spec.requests_per_minute,
            spec.tokens_per_minute,
            parse_price(spec.price),
        )
        spoken = SpokenOutput(spec.output, spec.voice, spec.transcriber)
        system = open_system(
            spec.model, spec.model_arg, options, spoken, hears=form != "transcript", method=spec.method, ear=spec.ear,
            home=home,
        )  # fmt: skip
        if isinstance(system, HearsFirst) and form == "transcript" and spec.audio != "transcript":
            raise UsageError(
                f"The data '{conversations.name}' hold no recordings, so that the ear has nothing to hear; take data "
                "with sound, or answer their transcripts with --audio transcript."
            )
        judge = open_judge(spec, conversations.judge_prompt)
        if spec.repeats > 1 and isinstance(system, RecordedSystem):
            kind = system.identity.adapter
            raise UsageError(f"{kind}: holds one reply to each conversation; leave out --repeats.")
        digits = read_digits(Path(spec.digits) if spec.digits else VOICED) if spec.hear else None
        card = read_card(Path(spec.card)) if spec.card else {}
        if isinstance(system, RecordedSystem) and system.conversations.isdisjoint(one.id for one in chosen):
            raise UsageError(
                f"'{spec.model}' holds a reply to {min(system.conversations)!r} and others, and to none of the "
                f"{len(chosen)} conversations chosen of the data '{conversations.name}'; check --data and --items."
            )
        prices = Prices(
            parse_price(spec.price), parse_price(spec.judge_price), spec.transcriber, spec.ear, voice_of_cascade(spec)
        )
        return DialogueRun(conversations, chosen, form, system, judge, card, spec.repeats, digits, prices)

    def files_beside(self, key: str, path: Path) -> list[Path]:
        """Of a file of data its recordings and its prompt, and of one of replies its recordings."""
        if not path.is_file():
            return []
        if key == "replies":
            return list(recorded_replies(path).recordings.values())
        return files_beside(path) if key == "data" else []

    def prepare_import(
        self, data: str, results: Path, model: str | None, judge_name: str | None, card: Path | None
    ) -> Import:
        """Read and check replies and verdicts made elsewhere."""
        from vivace.tracks.dialogue.taking_in.imported_results import prepare_import

        return prepare_import(data, results, model, judge_name, card)


def voice_of_cascade(spec: DialogueSpec) -> str | None:
    """The voice that the user names for what a cascade's model writes; the one that is taken otherwise is free."""
    return None if spec.ear is None else spec.voice


def require_prices(spec: DialogueSpec) -> None:
    """See that a cost cap can be kept.

    Raises:
        UsageError: nobody knows what some of the calls will cost.
    """
    if spec.max_cost is None:
        return
    unknown = []
    if spec.price is None and not is_rejudging(spec.model) and not has_price(spec.model):
        unknown.append(f"the model '{spec.model}' (name it with --price IN,OUT)")
    judges = [name.strip() for name in spec.judge.split(",")]
    if spec.judge_price is None:
        unknown += [f"the judge '{name}' (--judge-price IN,OUT)" for name in judges if not has_price(name)]
    for what, named in (("transcriber", spec.transcriber), ("ear", spec.ear)):
        if named is not None and not has_price(named):
            unknown.append(f"the {what} '{named}' (take one that litellm lists)")
    voice = voice_of_cascade(spec)
    if voice is not None and cost_of_speaking(voice, 1, 1.0) is None:
        unknown.append(f"the voice '{voice}' (take one that litellm lists)")
    if unknown:
        raise UsageError(f"--max-cost cannot be kept: no price is known of {', nor of '.join(unknown)}.")
