"""Adapters to the systems under test: one file for each word that may stand before the colon of a target."""
