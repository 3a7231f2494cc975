"""Tasks that are made here from a seed: one generator a file."""
