"""Decoding several tokens a step, and the plain decoding it is measured against."""
