"""Vivace over HTTP: submissions from people one does not know, as data and nothing else."""
