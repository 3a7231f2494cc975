"""What a judging and its neighbours come to over many verdicts, written once when it ends."""
