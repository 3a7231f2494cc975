"""Products that read the weights of large inputs only: layouts, their float64 reference, Triton, C++, rivals."""
