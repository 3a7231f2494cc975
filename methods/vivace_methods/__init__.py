"""Inference methods on transformers models and the stopwatch; they arrive with the efficiency tracks."""
