"""Speculation tried in all its forms on some prompts, and what is to be expected of it on others."""
