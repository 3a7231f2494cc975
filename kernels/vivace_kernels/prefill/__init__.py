"""Kernels for prompts that are read in part: which tokens matter, what is taken of them, and attention of a few."""
