"""Upkeep: copies of a database and back, what may go, labels, and figures for those who watch over it."""
