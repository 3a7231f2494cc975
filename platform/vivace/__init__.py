"""Vivace: everything that runs, stores and reports an evaluation."""

__version__ = "0.1.0"
