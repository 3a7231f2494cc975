"""Tracks: what can be measured. Each prepares a run, plans its items, executes one, and scores them all."""
