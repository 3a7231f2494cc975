"""Adapters to the systems under test and to judge models: one file each, found by the word before the colon."""
