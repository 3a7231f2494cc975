"""Verbs of whoever keeps an installation: its database, its doors, its health."""
