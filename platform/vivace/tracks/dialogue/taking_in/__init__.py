"""Runs that were generated or judged elsewhere, taken in beside those of this installation."""
