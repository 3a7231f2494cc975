"""The efficiency tracks: every arm answers the same prompts in one process, and each trial is recorded as it ends."""

from __future__ import annotations

from pathlib import Path

from vivace.errors import UsageError
from vivace.files.content_hash import folder_sha256
from vivace.spec import EfficiencySpec, RunSpec, read_card
from vivace.tracks.base import Import
from vivace.tracks.efficiency.fitting_texts import find_calibration
from vivace.tracks.efficiency.machine import check_numbers
from vivace.tracks.efficiency.measured_models import find_target, folder_of_fitted
from vivace.tracks.efficiency.planned_arms import plan_arms
from vivace.tracks.efficiency.prompts import plan_tasks
from vivace.tracks.efficiency.run import EfficiencyRun
from vivace_methods.arms import Arm
from vivace_methods.families import FAMILIES


class EfficiencyTrack:
    """One of the families of inference methods, which are measured alike."""

    takes_machine_alone = True

    def __init__(self, name: str) -> None:
        self.name = name

    def prepare(self, spec: RunSpec, home: Path) -> EfficiencyRun:
        """Find model, arms and tasks; nothing is loaded."""
        assert isinstance(spec, EfficiencySpec)
        check_numbers(spec)
        zoo = home / "zoo"
        target = find_target(spec.model, spec.layers, home)
        # How long a small model takes says nothing, nor which baseline is the fastest on it.
        baseline = spec.baseline
        if baseline is None and not target.origin.are_times_real:
            baseline = FAMILIES[self.name].baseline
        arms = plan_arms(self.name, spec.arms, spec.sweep, baseline)
        contents = [_content(name, arm, zoo) for name, arm in arms.items()]
        calibration = None
        if any(arm.awaits_recipe for arm in arms.values()):
            found = find_calibration(spec.calibration, spec.tasks)
            calibration = found.identity if spec.calibration is not None else None
        planned = plan_tasks(spec.tasks, spec.limit, spec.seed, spec.most_tokens)
        card = read_card(Path(spec.card)) if spec.card else {}
        named = None if baseline is None else next(iter(arms))
        asked = [contents, None if named is None else contents[0][0], *([] if calibration is None else [calibration])]
        return EfficiencyRun(self.name, spec, target, arms, named, asked, planned, card, home)

    def files_beside(self, key: str, path: Path) -> list[Path]:
        """None: what is named is all that is read."""
        return []

    def prepare_import(
        self, data: str, results: Path, model: str | None, judge_name: str | None, card: Path | None
    ) -> Import:
        """Refuse: times that were taken elsewhere cannot be paired with any of ours."""
        raise UsageError(f"The track {self.name} takes no results from elsewhere: its times are measured here.")


def _content(name: str, arm: Arm, zoo: Path) -> list[str]:
    """What makes it the same arm: the method with its settings, and the content of what was fitted.

    Raises:
        UsageError: what was fitted is not there or cannot be read.
    """
    if arm.fitted is None:
        return [name, arm.label]
    content = []
    for member in arm.members:
        content.append(member.method.label)
        if member.fitted is None:
            continue
        folder = folder_of_fitted(zoo)(member.fitted)
        try:
            content.append(folder_sha256(folder, member.method.fitted_files))
        except OSError as error:
            raise UsageError(f"What was fitted in '{folder}' cannot be read ({error.strerror}).") from error
    return content
