"""What becomes of replies: judges opened and asked, judging again, and the scores that come of verdicts."""
