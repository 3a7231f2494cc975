"""Tasks that are made here from a seed, in as many tokens of the model that is asked as are wanted."""
