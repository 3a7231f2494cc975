"""Verbs that start, queue, watch and end runs, and what they share."""
