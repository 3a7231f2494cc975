"""Kernels of speculation on mixtures of experts: routing under a budget, and the products of the experts kept."""
