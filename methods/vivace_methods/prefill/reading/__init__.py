"""How a prompt is pruned while a model of transformers reads it: hooks on its layers, and nothing else."""
