"""How far to draft, and how much of a draft to verify, by what passes cost on this machine."""
