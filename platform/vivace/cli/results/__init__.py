"""Verbs that show, compare, bring in and take out results."""
