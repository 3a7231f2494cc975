"""Tasks that others published: one reader a file."""
