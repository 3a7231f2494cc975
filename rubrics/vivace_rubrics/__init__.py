"""Rubrics: criteria, axes, judge prompts, judges and the reading of their verdicts."""
