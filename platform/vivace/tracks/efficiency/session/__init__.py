"""One session of measuring: the process that times the arms, and what it and the platform say to each other."""
