"""The process in which arms are timed: what they share in it, what they do outside their time, its memory."""
