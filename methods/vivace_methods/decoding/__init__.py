"""How a model with methods on it generates: one loop, made of a reader and a decoder."""
