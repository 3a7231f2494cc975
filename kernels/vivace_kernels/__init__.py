"""Kernels beside their plain-torch references: a folder for each family of methods, beside what all share."""
