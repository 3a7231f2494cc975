"""Verbs about what is measured and what measures: data, judges, methods, models, tasks."""
