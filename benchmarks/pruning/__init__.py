"""What `prefill_quality.py` is made of: prompts, arms, a prompt that is read once for all of them, and records."""
