"""The tracks speculation, prefill and sparsity: inference methods timed against each other, with what they cost."""
