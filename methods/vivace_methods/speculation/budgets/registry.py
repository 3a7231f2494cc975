"""The budget rules by name; a new one is one file and one line here, or a package with an entry point."""

from __future__ import annotations

from vivace_methods.errors import MethodError
from vivace_methods.plugins import PluginError, Registry, fault_of_subclass
from vivace_methods.speculation.budgets.base import BudgetRule
from vivace_methods.spelling import SpellingError, parse_one, read_settings

RULES: Registry[type[BudgetRule]] = Registry(
    "budget rule",
    "vivace.budget_rules",
    {
        "sum": "vivace_methods.speculation.budgets.sum_rule:SumRule",
        "piggyback": "vivace_methods.speculation.budgets.piggyback_rule:PiggybackRule",
        "coverage": "vivace_methods.speculation.budgets.coverage_rule:CoverageRule",
    },
    lambda name, made: fault_of_subclass(name, made, BudgetRule),
)


def parse_rule(text: str) -> BudgetRule:
    """A rule from the form `sum`, or `coverage(share=0.8)`.

    Raises:
        MethodError: there is no such rule, or it has no such setting.
    """
    try:
        part = parse_one(text)
        kind = RULES[part.name]
        return kind(**read_settings(kind, part, "budget rule"))
    except (SpellingError, PluginError) as error:
        raise MethodError(str(error)) from error
