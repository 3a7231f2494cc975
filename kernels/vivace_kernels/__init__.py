"""GPU kernels, each beside its plain-torch reference and its CPU path; they arrive with the efficiency tracks."""
