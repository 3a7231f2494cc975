"""Searches for the best settings of layers: what they try, what they have measured, and where they go on."""
