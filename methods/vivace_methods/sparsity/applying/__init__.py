"""Linear layers of a model that leave out inputs: which they are, and what they then compute."""
