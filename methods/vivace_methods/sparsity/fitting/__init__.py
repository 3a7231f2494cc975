"""What methods of activation sparsity learn of a model beforehand: thresholds, low-rank parts and searches."""
