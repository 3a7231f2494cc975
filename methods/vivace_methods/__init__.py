"""Inference methods on transformers models, and the stopwatch; torch, transformers and triton suffice to run them."""
