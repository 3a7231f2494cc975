"""The arms of an efficiency run: what was asked for, swept over its settings, beside the family's baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from vivace.errors import UsageError
from vivace.tracks.efficiency.measured_models import MeasuredModel
from vivace.tracks.efficiency.prompt_limits import check_prompts
from vivace.tracks.efficiency.prompts import PlannedPrompt
from vivace_methods.arms import Arm, ArmMember, FolderOf
from vivace_methods.protocol import MethodError
from vivace_methods.registry import METHODS, method_of, named_arms, parse_arm
from vivace_methods.spelling import setting_types
from vivace_methods.suggestions import did_you_mean


def plan_arms(
    family: str, written: Sequence[str], sweep: Mapping[str, Sequence[Any]], baseline: str | None
) -> dict[str, Arm]:
    """All arms by the names under which they are measured, the baseline first where one is named.

    The name of an arm that is swept says at which value it is, also where that is the setting's default.

    Args:
        family: the track.
        written: arms as a person writes them.
        sweep: setting → values; every arm that has the setting is measured at each value.
        baseline: as a person writes it; None leaves it to be found.

    Raises:
        UsageError: an unknown method, setting or value, a method of another family, a sweep that no arm has.
    """
    try:
        asked = _swept([parse_arm(text) for text in written], sweep)
        if baseline is not None:
            first = parse_arm(baseline)
            # Naming the baseline among the arms asks for nothing more; naming it twice asks for it against itself.
            if first in asked:
                asked.remove(first)
            asked.insert(0, first)
        arms = named_arms([(arm.label_showing(sweep), arm) for arm in asked])
    except MethodError as error:
        raise UsageError(str(error)) from error
    for name, arm in arms.items():
        if family not in arm.families:
            others = ", ".join(kind.name for kind in METHODS.values() if kind.family == family)
            raise UsageError(
                f"{name} belongs to the track {' and '.join(sorted(arm.families))}; those of {family} are {others}."
            )
    return arms


def check_arms(
    arms: Mapping[str, Arm],
    target: MeasuredModel,
    device: str,
    prompts: Sequence[PlannedPrompt],
    folder_of: FolderOf,
) -> None:
    """See that arms fit a model, a device and prompts, and what was fitted fits them, before a run is recorded.

    Weights are not read.

    Args:
        arms: of the run.
        target: the model.
        device: the kind that it runs on: `cpu` or `cuda`.
        prompts: that it is asked.
        folder_of: where what was fitted lies.

    Raises:
        UsageError: one does not fit.
        UnreachableError: the model is on the hub, and that does not answer.
    """
    members = [member for arm in arms.values() for member in arm.members]
    looking = [each for each in members if each.fitted or not each.method.knows(target.architecture)]
    try:
        for member in members:
            member.method.check_device(device)
        configuration = target.configuration() if looking else None  # takes seconds to read
        for member in looking:
            if not member.method.knows(target.architecture):
                member.method.check_model(configuration)
            if member.fitted is not None:
                member.method.check_fitted(folder_of(member.fitted), configuration)
        check_prompts(members, target, prompts, folder_of)
    except MethodError as error:
        raise UsageError(str(error)) from error


def _swept(arms: Sequence[Arm], sweep: Mapping[str, Sequence[Any]]) -> list[Arm]:
    swept = list(arms)
    for setting, values in sweep.items():
        having = [arm for arm in swept if any(setting in setting_types(type(each)) for each in arm.methods)]
        if not having:
            known = {each for arm in swept for method in arm.methods for each in setting_types(type(method))}
            meant = did_you_mean(setting, sorted(known))
            raise UsageError(f"--sweep {setting}=… changes nothing: no arm has a setting '{setting}'{meant}.")
        swept = [
            variant
            for arm in swept
            for variant in ([_at(arm, setting, value) for value in values] if arm in having else [arm])
        ]
    return swept


def _at(arm: Arm, setting: str, value: Any) -> Arm:
    return Arm(tuple(_member_at(each, setting, value) for each in arm.members))


def _member_at(member: ArmMember, setting: str, value: Any) -> ArmMember:
    if setting not in setting_types(type(member.method)):
        return member
    written = member.method.part_showing(member.method.settings)
    changed = replace(written, settings={**written.settings, setting: str(value)})
    return replace(member, method=method_of(changed))
