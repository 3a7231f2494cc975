"""Arms timed against each other: the stopwatch, what it is held against, and what speaks against its figures."""
