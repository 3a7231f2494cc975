"""What `speculation.py` is made of: passes that verify drafts, and whole answers under budgets of experts."""
