"""Work on one device: its times by the device's own clock, decode steps, and what a compiler makes of kernels."""
